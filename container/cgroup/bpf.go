package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The rules of a v2 group for devices are a BPF program of type CGROUP_DEVICE.
// It is a dozen kinds of instructions and four calls of bpf(2), which are
// written out here: github.com/cilium/ebpf would do it too, but brings 0.7 MB
// and eight packages that initialise themselves in every container's init.

// insn encodes one instruction (Documentation/bpf/standardization/instruction-set.rst).
func insn(code, dst, src byte, off int16, imm int32) []byte {
	b := []byte{code, dst | src<<4, 0, 0, 0, 0, 0, 0}
	if isBigEndian() {
		b[1] = dst<<4 | src
	}
	binary.NativeEndian.PutUint16(b[2:], uint16(off))
	binary.NativeEndian.PutUint32(b[4:], uint32(imm))
	return b
}

func isBigEndian() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) != 1 }

const (
	opLoad32  = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMovImm  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opMovReg  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
	opAndImm  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opRshImm  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opJumpNe  = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	opJumpEq  = unix.BPF_JMP32 | unix.BPF_JEQ | unix.BPF_K
	opExit    = unix.BPF_JMP | unix.BPF_EXIT
	typeBlock = 1
	typeChar  = 2
)

// deviceProgram is the rules as a program. It gets the type of device, the
// accesses wanted, major and minor (struct bpf_cgroup_dev_ctx), and returns 1
// to let pass. The rules are asked from the last to the first, each for the
// accesses that no later one has granted:
//
//	r2 = type   r3 = accesses not yet granted   r4 = major   r5 = minor
//	a rule that matches and denies any of r3:   return 0
//	a rule that matches and allows:             r3 &= ~its accesses; if 0, return 1
//	after the first rule:                       return 1 (nothing denied it)
//
// That is bit by bit what v1's list of exceptions comes down to.
func deviceProgram(rules []rule) []byte {
	var p []byte
	add := func(list ...[]byte) {
		for _, i := range list {
			p = append(p, i...)
		}
	}
	add(
		insn(opLoad32, 2, 1, 0, 0), // access_type: accesses << 16 | type
		insn(opMovReg, 3, 2, 0, 0),
		insn(opAndImm, 2, 0, 0, 0xffff),
		insn(opRshImm, 3, 0, 0, 16),
		insn(opLoad32, 4, 1, 4, 0),
		insn(opLoad32, 5, 1, 8, 0),
	)
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		var verdict [][]byte
		if r.allow {
			verdict = [][]byte{
				insn(opAndImm, 3, 0, 0, int32(^r.access&accessAll)),
				insn(opJumpNe, 3, 0, 2, 0),
				insn(opMovImm, 0, 0, 0, 1),
				insn(opExit, 0, 0, 0, 0),
			}
		} else {
			verdict = [][]byte{
				insn(opMovReg, 0, 3, 0, 0),
				insn(opAndImm, 0, 0, 0, int32(r.access)),
				insn(opJumpEq, 0, 0, 2, 0),
				insn(opMovImm, 0, 0, 0, 0),
				insn(opExit, 0, 0, 0, 0),
			}
		}
		conditions := r.conditions()
		for j, c := range conditions {
			// Past the conditions that follow and the verdict.
			add(insn(opJumpNe, c.register, 0, int16(len(conditions)-j-1+len(verdict)), c.value))
		}
		add(verdict...)
	}
	add(insn(opMovImm, 0, 0, 0, 1), insn(opExit, 0, 0, 0, 0))
	return p
}

type condition struct {
	register byte
	value    int32
}

func (r rule) conditions() []condition {
	var all []condition
	switch r.kind {
	case 'b':
		all = append(all, condition{2, typeBlock})
	case 'c':
		all = append(all, condition{2, typeChar})
	}
	if r.major >= 0 {
		all = append(all, condition{4, int32(r.major)})
	}
	if r.minor >= 0 {
		all = append(all, condition{5, int32(r.minor)})
	}
	return all
}

// loadAttr and attachAttr are the parts that are used of union bpf_attr.
type loadAttr struct {
	kind, count         uint32
	instructions        uint64
	license             uint64
	logLevel, logSize   uint32
	log                 uint64
	kernVersion, flags  uint32
	name                [16]byte
	ifindex, attachType uint32
}

type attachAttr struct {
	target, program, kind, flags, replace uint32
}

type queryAttr struct {
	target, kind, flags, attached uint32
	ids                           uint64
	count                         uint32
	_                             uint32
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR, unix.EAGAIN: // the verifier gives way to a signal
			continue
		}
		return -1, errno
	}
}

// attachDevices makes the program the one that decides in the group at dir, in
// place of any that we attached before. Programs of groups above are asked as
// well (BPF_F_ALLOW_MULTI), and go on to be.
func attachDevices(dir string, program []byte) error {
	group, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer group.Close()
	fd, err := loadDevices(program)
	if err != nil {
		return fmt.Errorf("load a BPF program for devices: %w", err)
	}
	defer unix.Close(fd) // from now on the group holds it
	before, err := devicePrograms(group)
	if err != nil {
		return fmt.Errorf("list the BPF programs of %s: %w", dir, err)
	}
	defer func() {
		for _, old := range before {
			unix.Close(old)
		}
	}()
	a := attachAttr{target: uint32(group.Fd()), program: uint32(fd), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
		return fmt.Errorf("attach a BPF program to %s: %w", dir, err)
	}
	for _, old := range before {
		a := attachAttr{target: uint32(group.Fd()), program: uint32(old), kind: unix.BPF_CGROUP_DEVICE}
		if _, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
			return fmt.Errorf("detach the former BPF program from %s: %w", dir, err)
		}
	}
	return nil
}

func loadDevices(program []byte) (int, error) {
	license := []byte("Apache-2.0\x00") // it calls no function that asks for the GPL
	var pin runtime.Pinner
	defer pin.Unpin()
	address := func(b []byte) uint64 {
		pin.Pin(&b[0])
		return uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	attr := loadAttr{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program) / 8), attachType: unix.BPF_CGROUP_DEVICE,
		instructions: address(program), license: address(license),
	}
	copy(attr.name[:], "crucible_dev")
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err == nil || errors.Is(err, unix.EPERM) {
		return fd, err
	}
	// Once more for the reason: the verifier's log.
	log := make([]byte, 64<<10)
	attr.logLevel, attr.logSize, attr.log = 1, uint32(len(log)), address(log)
	if fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		text, _, _ := strings.Cut(string(log), "\x00")
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(text))
	}
	return fd, err
}

// devicePrograms opens those attached to this very group.
func devicePrograms(group *os.File) ([]int, error) {
	ids := make([]uint32, 64)
	var pin runtime.Pinner
	pin.Pin(&ids[0])
	defer pin.Unpin()
	q := queryAttr{target: uint32(group.Fd()), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&q), unsafe.Sizeof(q))
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, id := range ids[:q.count] {
		attr := struct{ id, next, flags uint32 }{id: id}
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		if err == nil {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}
