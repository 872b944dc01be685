package workload

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const filtered = 77

func seccompFilter() (func() error, error) {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_GETPPID, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | filtered},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	pid, err := fork(func() {
		unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
		unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(program)), 0, 0, 0)
		for {
			l.hear()
			_, _, errno := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
			l.tell(byte(errno))
		}
	})
	if err != nil {
		return nil, err
	}
	check := func() error {
		errno, err := l.ask(0)
		if err != nil {
			return err
		}
		mode, err := status(pid, "Seccomp")
		return first(err, same("mode", mode, "Seccomp:\t2\n"), same("errno of getppid", errno, byte(filtered)))
	}
	return check, check()
}

func seccompStrict() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	pid, err := fork(func() {
		unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_STRICT, 0, 0, 0, 0)
		for l.hear() == 0 {
			l.tell(0)
		}
		unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) // is its end
		l.tell(1)
	})
	if err != nil {
		return nil, err
	}
	if _, err := l.ask(0); err != nil {
		return nil, err
	}
	return func() error {
		if _, err := l.ask(0); err != nil {
			return err
		}
		mode, err := status(pid, "Seccomp")
		if err := first(err, same("mode", mode, "Seccomp:\t1\n"), send(l.down[1], []byte{1})); err != nil {
			return err
		}
		var s unix.WaitStatus
		if _, err := unix.Wait4(pid, &s, 0, nil); err != nil {
			return fmt.Errorf("wait for the child: %w", err)
		}
		return same("signal that a forbidden call gave", s.Signal(), unix.SIGKILL)
	}, nil
}
