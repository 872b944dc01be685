package core

import (
	"encoding/binary"
)

// machine is e_machine of an ELF file.
type machine uint16

const (
	x86   machine = 62  // EM_X86_64
	arm64 machine = 183 // EM_AARCH64
)

// Types of notes (linux/elf.h).
const (
	ntPRStatus  = 1
	ntFPRegSet  = 2
	ntPRPSInfo  = 3
	ntAuxv      = 6
	ntX86XState = 0x202
	ntARMTLS    = 0x401
	ntFile      = 0x46494c45
)

type note struct {
	name string // "CORE", or "LINUX" for what came later
	typ  uint32
	data []byte
}

type x86Thread struct {
	Registers struct {
		R15    uint64 `criu:"r15"`
		R14    uint64 `criu:"r14"`
		R13    uint64 `criu:"r13"`
		R12    uint64 `criu:"r12"`
		BP     uint64 `criu:"bp"`
		BX     uint64 `criu:"bx"`
		R11    uint64 `criu:"r11"`
		R10    uint64 `criu:"r10"`
		R9     uint64 `criu:"r9"`
		R8     uint64 `criu:"r8"`
		AX     uint64 `criu:"ax"`
		CX     uint64 `criu:"cx"`
		DX     uint64 `criu:"dx"`
		SI     uint64 `criu:"si"`
		DI     uint64 `criu:"di"`
		OrigAX uint64 `criu:"orig_ax"`
		IP     uint64 `criu:"ip"`
		CS     uint64 `criu:"cs"`
		Flags  uint64 `criu:"flags"`
		SP     uint64 `criu:"sp"`
		SS     uint64 `criu:"ss"`
		FSBase uint64 `criu:"fs_base"`
		GSBase uint64 `criu:"gs_base"`
		DS     uint64 `criu:"ds"`
		ES     uint64 `criu:"es"`
		FS     uint64 `criu:"fs"`
		GS     uint64 `criu:"gs"`
		Mode   string `criu:"mode"`
	} `criu:"gpregs"`
	FP struct {
		CWD       uint16   `criu:"cwd"`
		SWD       uint16   `criu:"swd"`
		TWD       uint16   `criu:"twd"`
		FOP       uint16   `criu:"fop"`
		RIP       uint64   `criu:"rip"`
		RDP       uint64   `criu:"rdp"`
		MXCSR     uint32   `criu:"mxcsr"`
		MXCSRMask uint32   `criu:"mxcsr_mask"`
		ST        []uint32 `criu:"st_space"`
		XMM       []uint32 `criu:"xmm_space"`
		XSave     *struct {
			XStateBV uint64   `criu:"xstate_bv"`
			YMMH     []uint32 `criu:"ymmh_space"`
			Opmask   []uint64 `criu:"opmask_reg"`
			ZMMUpper []uint64 `criu:"zmm_upper"`
			Hi16ZMM  []uint64 `criu:"hi16_zmm"`
			PKRU     []uint32 `criu:"pkru"`
		} `criu:"xsave"`
	} `criu:"fpregs"`
}

// fill sets the registers in the order of struct user_regs_struct (asm/user_64.h).
func (x *x86Thread) fill(t *Thread) {
	r := &x.Registers
	t.Registers = []uint64{
		r.R15, r.R14, r.R13, r.R12, r.BP, r.BX, r.R11, r.R10, r.R9, r.R8, r.AX, r.CX, r.DX, r.SI, r.DI, r.OrigAX,
		r.IP, r.CS, r.Flags, r.SP, r.SS, r.FSBase, r.GSBase, r.DS, r.ES, r.FS, r.GS,
	}
	fxsave := x.fxsave()
	t.notes = append(t.notes, note{"CORE", ntFPRegSet, fxsave})
	if xsave := x.xsave(fxsave); xsave != nil {
		t.notes = append(t.notes, note{"LINUX", ntX86XState, xsave})
	}
}

// fxsave is struct user_i387_struct: the area of FXSAVE64, 512 bytes.
func (x *x86Thread) fxsave() []byte {
	f, le := &x.FP, binary.LittleEndian
	b := make([]byte, 512)
	for n, v := range []uint16{f.CWD, f.SWD, f.TWD, f.FOP} {
		le.PutUint16(b[2*n:], v)
	}
	le.PutUint64(b[8:], f.RIP)
	le.PutUint64(b[16:], f.RDP)
	le.PutUint32(b[24:], f.MXCSR)
	le.PutUint32(b[28:], f.MXCSRMask)
	put32(b[32:160], f.ST)
	put32(b[160:416], f.XMM)
	return b
}

// States of XSAVE (asm/fpu/types.h), and where they are in its standard form on
// the processors that gdb knows (gdbsupport/x86-xstate.h).
const (
	stateLegacy = 0x3
	stateYMM    = 0x4
	stateAVX512 = 0xe0
	statePKRU   = 0x200

	atXCR0, atHeader, atYMM              = 464, 512, 576
	atOpmask, atZMMUpper, atHi16, atPKRU = 1088, 1152, 1664, 2688

	endYMM, endAVX512, endPKRU = 832, 2688, 2696
)

// xsave is the area of XSAVE up to the last state that is there, or nil.
func (x *x86Thread) xsave(fxsave []byte) []byte {
	s := x.FP.XSave
	if s == nil || len(s.YMMH) == 0 {
		return nil
	}
	states, size := uint64(stateLegacy|stateYMM), endYMM
	if len(s.Opmask) > 0 {
		states, size = states|stateAVX512, endAVX512
		if len(s.PKRU) > 0 {
			states, size = states|statePKRU, endPKRU
		}
	}
	b := make([]byte, size)
	copy(b, fxsave)
	le := binary.LittleEndian
	le.PutUint64(b[atXCR0:], states) // where the kernel puts it for debuggers
	le.PutUint64(b[atHeader:], s.XStateBV&states)
	put32(b[atYMM:endYMM], s.YMMH)
	if states&stateAVX512 != 0 {
		put64(b[atOpmask:atZMMUpper], s.Opmask)
		put64(b[atZMMUpper:atHi16], s.ZMMUpper)
		put64(b[atHi16:endAVX512], s.Hi16ZMM)
	}
	if states&statePKRU != 0 {
		put32(b[atPKRU:endPKRU], s.PKRU)
	}
	return b
}

type aarch64Thread struct {
	TLS       uint64 `criu:"tls"`
	Registers struct {
		X      []uint64 `criu:"regs"`
		SP     uint64   `criu:"sp"`
		PC     uint64   `criu:"pc"`
		PState uint64   `criu:"pstate"`
	} `criu:"gpregs"`
	FP struct {
		V    []uint64 `criu:"vregs"`
		FPSR uint32   `criu:"fpsr"`
		FPCR uint32   `criu:"fpcr"`
	} `criu:"fpsimd"`
}

// fill sets the registers in the order of struct user_pt_regs (asm/ptrace.h).
func (a *aarch64Thread) fill(t *Thread) {
	r := &a.Registers
	t.Registers = append(append([]uint64{}, r.X...), r.SP, r.PC, r.PState)
	fp := make([]byte, 528) // struct user_fpsimd_state
	put64(fp[:512], a.FP.V)
	binary.LittleEndian.PutUint32(fp[512:], a.FP.FPSR)
	binary.LittleEndian.PutUint32(fp[516:], a.FP.FPCR)
	tls := binary.LittleEndian.AppendUint64(nil, a.TLS)
	t.notes = append(t.notes, note{"CORE", ntFPRegSet, fp}, note{"LINUX", ntARMTLS, tls})
}

// put32 puts as many values as there is room for.
func put32(b []byte, values []uint32) {
	for n, v := range values[:min(len(values), len(b)/4)] {
		binary.LittleEndian.PutUint32(b[4*n:], v)
	}
}

func put64(b []byte, values []uint64) {
	for n, v := range values[:min(len(values), len(b)/8)] {
		binary.LittleEndian.PutUint64(b[8*n:], v)
	}
}
