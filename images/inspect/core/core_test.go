package core

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/images"
	"crucible/images/inspect/criufile"
	"crucible/images/inspect/memory"
	"crucible/proto/imagepb"
)

const page = 4096

func encode(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := criufile.Encode(t.Context(), &b, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// machine of the image, registers of each thread.
const x86Core = `{"magic": "CORE", "entries": [{"mtype": "X86_64",
	"thread_info": {"clear_tid_addr": 0, "gpregs": {"r15": 15, "r14": 14, "r13": 13, "r12": 12, "bp": 55, "bx": 33, "r11": 11, "r10": 10, "r9": 9, "r8": 8,
		"ax": 1, "cx": 2, "dx": 3, "si": 4, "di": 5, "orig_ax": 34, "ip": %d, "cs": 51, "flags": 582, "sp": 8192, "ss": 43, "fs_base": 77, "gs_base": 0,
		"ds": 0, "es": 0, "fs": 0, "gs": 0, "mode": "%s"},
	"fpregs": {"cwd": 895, "swd": 0, "twd": 0, "fop": 0, "rip": 0, "rdp": 0, "mxcsr": 8064, "mxcsr_mask": 65535, "st_space": [9], "xmm_space": [6, 7],
		"xsave": {"xstate_bv": 7, "ymmh_space": [21, 22]}}},
	"tc": {"task_state": 1, "exit_code": 0, "personality": 0, "flags": 0, "blk_sigset": 0, "comm": "program"},
	"thread_core": {"futex_rla": 0, "futex_rla_len": 0, "sched_nice": -3, "blk_sigset": 4096,
		"creds": {"uid": 1000, "gid": 1001, "euid": 0, "egid": 0, "suid": 0, "sgid": 0, "fsuid": 0, "fsgid": 0, "secbits": 0}}}]}`

func armCore() string {
	registers := make([]string, 31)
	for n := range registers {
		registers[n] = fmt.Sprint(100 + n)
	}
	return `{"magic": "CORE", "entries": [{"mtype": "AARCH64", "ti_aarch64": {"clear_tid_addr": 0, "tls": 4242,
		"gpregs": {"regs": [` + strings.Join(registers, ", ") + `], "sp": 8192, "pc": 4100, "pstate": 5},
		"fpsimd": {"vregs": [70, 71], "fpsr": 1, "fpcr": 2}}, "tc": {"task_state": 1, "exit_code": 0, "personality": 0, "flags": 0, "blk_sigset": 0, "comm": "program"}}]}`
}

const mmHead = `{"magic": "MM", "entries": [{"mm_start_code": 0, "mm_end_code": 0, "mm_start_data": 0, "mm_end_data": 0, "mm_start_stack": 0, "mm_start_brk": 0,
	"mm_brk": 0, "mm_arg_start": 0, "mm_arg_end": 0, "mm_env_start": 0, "mm_env_end": 0, "exe_file_id": 1, "mm_saved_auxv": [6, 4096, 0, 0], "vmas": [`

// files of process 7: a file mapping with one of three pages, memory with two of
// five, and what is not mapped.
func files(t testing.TB) map[string][]byte {
	fill := func(c byte) []byte { return bytes.Repeat([]byte{c}, page) }
	return map[string][]byte{
		"pstree.img": encode(t, `{"magic": "PSTREE", "entries": [{"pid": 1, "ppid": 0, "pgid": 1, "sid": 1, "threads": [1]}, {"pid": 7, "ppid": 1, "pgid": 7, "sid": 1, "threads": [7, 9]}]}`),
		"core-7.img": encode(t, fmt.Sprintf(x86Core, 4100, "NATIVE")),
		"core-9.img": encode(t, fmt.Sprintf(x86Core, 4200, "NATIVE")),
		"mm-7.img": encode(t, mmHead+`
			{"start": 4096, "end": 16384, "pgoff": 8192, "shmid": 1, "prot": 5, "flags": 2, "status": 65, "fd": -1},
			{"start": 65536, "end": 86016, "pgoff": 0, "shmid": 0, "prot": 3, "flags": 34, "status": 513, "fd": -1}]}]}`),
		"files.img": encode(t, `{"magic": "FILES", "entries": [{"type": "REG", "id": 1, "reg": {"id": 1, "flags": 0, "pos": 0,
			"fown": {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}, "name": "/bin/program"}}]}`),
		"pagemap-7.img": encode(t, `{"magic": "PAGEMAP", "entries": [{"pages_id": 1}, {"vaddr": 8192, "compat_nr_pages": 0, "flags": 4, "nr_pages": 1},
			{"vaddr": 69632, "compat_nr_pages": 0, "flags": 4, "nr_pages": 1}, {"vaddr": 77824, "compat_nr_pages": 0, "flags": 4, "nr_pages": 1}]}`),
		"pages-1.img": append(append(fill('a'), fill('b')...), fill('c')...),
	}
}

func open(t testing.TB, files map[string][]byte) *memory.Memory {
	t.Helper()
	d, err := images.Store{Dir: t.TempDir()}.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Discard() }()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(d.CRIUDir(), name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i, err := d.Commit(t.Context(), &imagepb.Manifest{Writer: &imagepb.Writer{PageSize: page}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := memory.Open(i)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// write makes a core file and lets Go's reader of ELF files look at it.
func write(t testing.TB, m *memory.Memory) (*elf.File, string) {
	t.Helper()
	p, err := Load(m, 7)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "core")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := p.Write(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	e, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, path
}

// notesOf are the notes of a core file by type, in order.
func notesOf(t testing.TB, e *elf.File) map[uint32][][]byte {
	t.Helper()
	b := make([]byte, e.Progs[0].Filesz)
	if _, err := e.Progs[0].ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	all := map[uint32][][]byte{}
	for len(b) > 0 {
		name, size, typ := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
		b = b[12+(name+3)/4*4:]
		all[typ] = append(all[typ], b[:size])
		b = b[(size+3)/4*4:]
	}
	return all
}

func TestWrite(t *testing.T) {
	e, path := write(t, open(t, files(t)))
	if e.Type != elf.ET_CORE || e.Machine != elf.EM_X86_64 || e.Progs[0].Type != elf.PT_NOTE {
		t.Errorf("%v for %v begins with %v", e.Type, e.Machine, e.Progs[0].Type)
	}
	got := ""
	for _, p := range e.Progs[1:] {
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil && p.Filesz > 0 {
			t.Fatal(err)
		}
		text := ""
		for ; len(b) > 0; b = b[page:] {
			text += strings.ReplaceAll(string(b[:1]), "\x00", "0")
		}
		got += fmt.Sprintf("%x+%d %v %q\n", p.Vaddr, p.Memsz/page, p.Flags, text)
		if p.Filesz > 0 && p.Off%page != 0 {
			t.Errorf("segment at %x", p.Off)
		}
	}
	// The zeros between b and c go with them, those around do not.
	want := `1000+1 PF_X+PF_R ""
2000+1 PF_X+PF_R "a"
3000+1 PF_X+PF_R ""
10000+1 PF_W+PF_R ""
11000+3 PF_W+PF_R "b0c"
14000+1 PF_W+PF_R ""
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Size()%page != 0 {
		t.Errorf("%v, %v", info.Size(), err)
	}
}

func TestNotes(t *testing.T) {
	e, _ := write(t, open(t, files(t)))
	all, le := notesOf(t, e), binary.LittleEndian
	status := all[ntPRStatus]
	if len(status) != 2 || len(status[0]) != 336 {
		t.Fatalf("%d threads, %d bytes", len(status), len(status[0]))
	}
	for n, ip := range []uint64{4100, 4200} {
		s := status[n]
		if pid := le.Uint32(s[32:]); pid != []uint32{7, 9}[n] {
			t.Errorf("thread %d", pid)
		}
		if le.Uint32(s[36:]) != 1 || le.Uint64(s[24:]) != 4096 || le.Uint64(s[112+8*16:]) != ip || le.Uint64(s[112+8*19:]) != 8192 || le.Uint64(s[112:]) != 15 || le.Uint32(s[328:]) != 1 {
			t.Errorf("status %x", s)
		}
	}
	if i := all[ntPRPSInfo][0]; len(i) != 136 || int8(i[3]) != -3 || le.Uint32(i[16:]) != 1000 || le.Uint32(i[20:]) != 1001 || le.Uint32(i[24:]) != 7 || !bytes.HasPrefix(i[40:], []byte("program\x00")) {
		t.Errorf("info %x", i)
	}
	if a := all[ntAuxv][0]; len(a) != 32 || le.Uint64(a) != 6 || le.Uint64(a[8:]) != 4096 {
		t.Errorf("auxv %x", a)
	}
	if f := all[ntFile][0]; le.Uint64(f) != 1 || le.Uint64(f[16:]) != 0x1000 || le.Uint64(f[24:]) != 0x4000 || le.Uint64(f[32:]) != 2 || string(f[40:]) != "/bin/program\x00" {
		t.Errorf("files %x", f)
	}
	fp, xsave := all[ntFPRegSet][0], all[ntX86XState][1]
	if len(fp) != 512 || le.Uint16(fp) != 895 || le.Uint32(fp[24:]) != 8064 || le.Uint32(fp[32:]) != 9 || le.Uint32(fp[160:]) != 6 {
		t.Errorf("fpregs %x", fp)
	}
	if len(xsave) != 832 || le.Uint64(xsave[464:]) != 7 || le.Uint64(xsave[512:]) != 7 || le.Uint32(xsave[580:]) != 22 {
		t.Errorf("xsave %x", xsave)
	}
}

func TestARM64(t *testing.T) {
	all := files(t)
	all["core-7.img"] = encode(t, armCore())
	all["core-9.img"] = all["core-7.img"]
	e, _ := write(t, open(t, all))
	if e.Machine != elf.EM_AARCH64 {
		t.Errorf("for %v", e.Machine)
	}
	notes, le := notesOf(t, e), binary.LittleEndian
	s := notes[ntPRStatus][1]
	if len(s) != 392 || le.Uint64(s[112+8*30:]) != 130 || le.Uint64(s[112+8*31:]) != 8192 || le.Uint64(s[112+8*32:]) != 4100 || le.Uint32(s[384:]) != 1 {
		t.Errorf("status %x", s)
	}
	if tls := notes[ntARMTLS][0]; le.Uint64(tls) != 4242 {
		t.Errorf("tls %x", tls)
	}
	if fp := notes[ntFPRegSet][0]; len(fp) != 528 || le.Uint64(fp[8:]) != 71 || le.Uint32(fp[516:]) != 2 {
		t.Errorf("fpsimd %x", fp)
	}
}

func TestBad(t *testing.T) {
	for name, c := range map[string]struct {
		change func(map[string][]byte)
		want   string
	}{
		"no tree":      {func(f map[string][]byte) { delete(f, "pstree.img") }, "criu/pstree.img is missing"},
		"no registers": {func(f map[string][]byte) { delete(f, "core-9.img") }, "criu/core-9.img is missing"},
		"cut off":      {func(f map[string][]byte) { f["core-7.img"] = f["core-7.img"][:60] }, "criu/core-7.img cannot be read"},
		"empty":        {func(f map[string][]byte) { f["core-7.img"] = f["core-7.img"][:8] }, "criu/core-7.img is empty"},
		"not in tree":  {func(f map[string][]byte) { f["pstree.img"] = encode(t, `{"magic": "PSTREE", "entries": []}`) }, "criu/pstree.img is empty"},
		"32 bits":      {func(f map[string][]byte) { f["core-7.img"] = encode(t, fmt.Sprintf(x86Core, 1, "COMPAT")) }, "process 7 is one of 32 bits"},
		"two machines": {func(f map[string][]byte) { f["core-9.img"] = encode(t, armCore()) }, "of another kind of machine"},
		"other machine": {func(f map[string][]byte) {
			f["core-7.img"] = encode(t, strings.Replace(armCore(), "AARCH64", "RISCV64", 1))
		}, "written on riscv64"},
		"few registers": {func(f map[string][]byte) { f["core-7.img"] = encode(t, strings.Replace(armCore(), "100, ", "", 1)) }, "criu/core-7.img has no registers"},
	} {
		t.Run(name, func(t *testing.T) {
			all := files(t)
			c.change(all)
			if _, err := Load(open(t, all), 7); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	if _, err := Load(open(t, files(t)), 8); !errors.Is(err, images.NotFound) {
		t.Errorf("process 8: %v", err)
	}
}

// More segments than the header can count.
func TestManySegments(t *testing.T) {
	p := &Process{machine: x86, pages: page}
	segments := make([]segment, manySegments+5)
	for n := range segments {
		segments[n] = segment{typ: typeLoad, size: page}
	}
	head := p.layout(segments)
	le := binary.LittleEndian
	section := le.Uint64(head[40:])
	if le.Uint16(head[56:]) != manySegments || le.Uint16(head[60:]) != 1 || le.Uint32(head[section+44:]) != manySegments+5 || int(section)+sectionSize != len(head) {
		t.Errorf("header %x, section %x", head[:headerSize], head[section:])
	}
}
