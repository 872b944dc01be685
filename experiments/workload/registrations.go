package workload

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// registrationCases ask about memory that a thread has shown to the kernel.
func registrationCases() []Case {
	return []Case{
		{Name: "rseq", Question: "Does a thread's registration for restartable sequences survive?", Needs: []string{"criu/get_rseq_conf"}, program: rseq},
		{Name: "robust-list", Question: "Does a thread's list of robust futexes survive?", program: robustList},
		{Name: "membarrier", Question: "Does a process stay registered for memory barriers?", program: membarrier},
	}
}

func rseq() (func() error, error) {
	// struct rseq of include/uapi/linux/rseq.h: 32 bytes, aligned so.
	block := make([]byte, 64)
	area := unsafe.Pointer(&block[32-uintptr(unsafe.Pointer(&block[0]))%32])
	const signature = 0x53053053
	register := func() unix.Errno {
		_, _, errno := unix.RawSyscall6(unix.SYS_RSEQ, uintptr(area), 32, 0, signature, 0, 0)
		return errno
	}
	if errno := register(); errno != 0 {
		return nil, lacks("rseq", errno)
	}
	return func() error {
		// A thread that is registered so gets EBUSY, another would succeed
		// (kernel/rseq.c).
		return same("second registration", register(), unix.EBUSY)
	}, nil
}

func robustList() (func() error, error) {
	head := new([3]uintptr) // struct robust_list_head, an empty list
	head[0] = uintptr(unsafe.Pointer(head))
	size := unsafe.Sizeof(*head)
	if _, _, errno := unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(unsafe.Pointer(head)), size, 0); errno != 0 {
		return nil, lacks("robust futexes", errno)
	}
	return func() error {
		var got, length uintptr
		_, _, errno := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, 0, uintptr(unsafe.Pointer(&got)), uintptr(unsafe.Pointer(&length)))
		if errno != 0 {
			return fmt.Errorf("get_robust_list: %w", errno)
		}
		return first(same("list", got, uintptr(unsafe.Pointer(head))), same("length", length, size))
	}, nil
}

func membarrier() (func() error, error) {
	const expedited, register = 1 << 3, 1 << 4 // MEMBARRIER_CMD_PRIVATE_EXPEDITED and its REGISTER
	call := func(command uintptr) unix.Errno {
		_, _, errno := unix.RawSyscall(unix.SYS_MEMBARRIER, command, 0, 0)
		return errno
	}
	if errno := call(register); errno != 0 {
		return nil, lacks("membarrier", errno, unix.EINVAL)
	}
	return func() error {
		if errno := call(expedited); errno != 0 { // EPERM: not registered
			return fmt.Errorf("membarrier: %w", errno)
		}
		return nil
	}, nil
}
