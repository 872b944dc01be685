package confine

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Filter is a compiled system call filter, ready for the kernel and small
// enough to be sent to a container's init as JSON. confine/seccomp makes one
// from a profile.
type Filter struct {
	// Flags are the SECCOMP_FILTER_FLAG_* of seccomp(2).
	Flags uint32 `json:"flags,omitempty"`
	// Program is an array of the kernel's struct sock_filter (linux/filter.h)
	// in this machine's byte order.
	Program []byte `json:"program"`
}

// sizeofInstruction is sizeof(struct sock_filter).
const sizeofInstruction = 8

// Len is the number of instructions.
func (f *Filter) Len() int { return len(f.Program) / sizeofInstruction }

func (f *Filter) String() string { return fmt.Sprintf("filter of %d instructions", f.Len()) }

// Load puts the filter on the calling thread, which needs no_new_privs or
// CAP_SYS_ADMIN. It cannot be undone. Identity.Exec calls it at the right time.
func (f *Filter) Load() error {
	n := f.Len()
	if n == 0 || n > 4096 || len(f.Program)%sizeofInstruction != 0 { // BPF_MAXINSNS
		return fmt.Errorf("load %v: %w", f, errors.New("not a program of 1 to 4096 instructions"))
	}
	program := make([]unix.SockFilter, n)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&program[0])), len(f.Program)), f.Program)
	fprog := unix.SockFprog{Len: uint16(n), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		uintptr(f.Flags), uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(&fprog)
	runtime.KeepAlive(program)
	switch errno {
	case 0:
		return nil
	case unix.EACCES:
		return fmt.Errorf("load %v: %w (needs noNewPrivileges or CAP_SYS_ADMIN)", f, errno)
	case unix.EINVAL:
		return fmt.Errorf("load %v: %w (refused by this kernel, flags %#x)", f, errno, f.Flags)
	case unix.ENOSYS:
		return fmt.Errorf("load %v: %w (a kernel without CONFIG_SECCOMP_FILTER)", f, errno)
	}
	return fmt.Errorf("load %v: %w", f, errno)
}
