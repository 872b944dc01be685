package workload

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func sleeping(number uintptr) program {
	return func() (func() error, error) {
		l, err := newLine()
		if err != nil {
			return nil, err
		}
		long := unix.NsecToTimespec(int64(24 * time.Hour))
		pid, err := fork(func() {
			errno := rawNanosleep(&long)
			l.tell(byte(errno))
			pause()
		})
		if err != nil {
			return nil, err
		}
		// A sleep that was interrupted is gone on with by restart_syscall(2).
		asleep := func() error { return waiting(pid, l.up[0], number, unix.SYS_RESTART_SYSCALL) }
		return asleep, asleep()
	}
}

func waiting(pid, up int, calls ...uintptr) error {
	var want []string
	for _, c := range calls {
		want = append(want, fmt.Sprint(c))
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(up), Events: unix.POLLIN}}, 1)
		if n > 0 && err == nil {
			b, err := receive(up, 1)
			return first(err, fmt.Errorf("the call ended with %w", unix.Errno(b[0])))
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid)) // "running" while it is
		if err != nil {
			return err
		}
		call, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		if f, err := statFields(pid); err == nil && f[0] == "S" && slices.Contains(want, call) {
			return nil
		}
	}
	return fmt.Errorf("process %d is not in system call %v after %v", pid, want, patience)
}

func blockedRead() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	pid, err := fork(func() {
		var b [1]byte
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(l.down[0]), uintptr(unsafe.Pointer(&b)), 1)
		if errno != 0 || n != 1 {
			b[0] = 255
		}
		l.tell(b[0])
		pause()
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		got, err := l.ask(5)
		return first(err, same("what the read gave", got, byte(5)))
	}, waiting(pid, l.up[0], unix.SYS_READ)
}
