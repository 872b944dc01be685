package workload

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Two that package syscall uses around its fork; see container/fork.
//
//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// fork makes a child that is a copy of the calling thread, as fork(2) does,
// and runs f in it; the child ends when f returns, with the status 0. It costs
// a tenth of a Go program.
//
// The child has one thread and no Go runtime that could give it others: f may
// make system calls by way of unix.RawSyscall, and little else: it must not
// allocate, wait for a goroutine, or fail. All signals are blocked in it, since
// their handlers are the runtime's.
func fork(f func()) (pid int, err error) { return clone(0, f) }

// clone is fork for a child that shares with us what flags say, but no memory.
func clone(flags uintptr, f func()) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all, old := fullSet(), sigset{}
	sigprocmask(unix.SIG_SETMASK, &all, &old)
	// In a copy of a goroutine that was just asked to make room for another one
	// the next call of a function would do so, and nobody would ever call it
	// back. afterFork takes such a request back.
	beforeFork()
	r, _, errno := unix.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	afterFork()
	if errno == 0 && r == 0 {
		f()
		exit(0)
	}
	sigprocmask(unix.SIG_SETMASK, &old, nil)
	if errno != 0 {
		return 0, fmt.Errorf("fork: %w", errno)
	}
	return int(r), nil
}

// exit ends a forked child.
func exit(status int) {
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(status), 0, 0)
	}
}

// pause is what a forked child does that is only there.
func pause() {
	for {
		unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// hear reads one byte in a forked child, which ends at the end of file.
func hear(fd int) byte {
	var b [1]byte
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1)
		switch {
		case errno == unix.EINTR:
		case errno != 0 || n == 0:
			exit(100)
		default:
			return b[0]
		}
	}
}

// tell writes one byte in a forked child.
func tell(fd int, b byte) {
	one := [1]byte{b}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 1)
		if errno != unix.EINTR {
			return
		}
	}
}

// line is two pipes between a program and its forked children.
type line struct {
	up, down [2]int // each: read from 0, write to 1
}

func newLine() (*line, error) {
	l := &line{}
	return l, errors.Join(unix.Pipe2(l.up[:], unix.O_CLOEXEC), unix.Pipe2(l.down[:], unix.O_CLOEXEC))
}

// hear and tell are the child's ends.
func (l *line) hear() byte  { return hear(l.down[0]) }
func (l *line) tell(b byte) { tell(l.up[1], b) }

// ask sends the child one byte and returns the one that it answers.
func (l *line) ask(b byte) (byte, error) {
	if err := send(l.down[1], []byte{b}); err != nil {
		return 0, err
	}
	return l.answer()
}

func (l *line) answer() (byte, error) {
	got, err := receive(l.up[0], 1)
	if err != nil {
		return 0, fmt.Errorf("hear from the child: %w", err)
	}
	return got[0], nil
}

// answers waits for n children to have said something.
func (l *line) answers(n int) error {
	_, err := receive(l.up[0], n)
	if err != nil {
		return fmt.Errorf("hear from the children: %w", err)
	}
	return nil
}

// ended waits for a child's end, and wants an exit status.
func ended(pid, status int) error {
	var s unix.WaitStatus
	for {
		got, err := unix.Wait4(pid, &s, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for child %d: %w", pid, err)
		}
		if got != pid || !s.Exited() || s.ExitStatus() != status {
			return fmt.Errorf("child %d ended with wait status %#x, want exit status %d", pid, int(s), status)
		}
		return nil
	}
}

func rawNanosleep(t *unix.Timespec) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(t)), 0, 0)
	return errno
}
