package fork

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options say what to start, and where.
type Options struct {
	// Target is the process whose namespaces are entered. It must not be
	// reaped meanwhile; PidFD, if there is one, makes sure that it is not
	// somebody else by now.
	Target int
	PidFD  *os.File
	// Namespaces are CLONE_NEW* flags. Zero: all that the target does not
	// share with the calling thread.
	Namespaces uintptr
	// Exe is executed, by descriptor. Its environment is Env and nothing else.
	Exe  *os.File
	Args []string
	Env  []string
	// Capabilities, a bit each, are all that the child has, at most. Zero:
	// those that we have. Whoever may trace it inside has them, too.
	Capabilities uint64
	// Files become descriptors 0, 1, 2 and so on. No other is passed on.
	Files []*os.File
	// Cgroup, if there is one, is the directory of the v2 cgroup in which scout
	// and child are born. A kernel before Linux 5.7 cannot do it: ENOSYS or E2BIG.
	Cgroup *os.File
	// Place is called when the child exists, before it executes anything. Its
	// error ends the child.
	Place func(pid int) error
}

// Error says which step inside the namespaces failed.
type Error struct {
	Step string
	Err  error
}

func (e *Error) Error() string { return e.Step + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Into starts a program in the namespaces of a process. It is a child of ours,
// to be waited for, and its pid is the one that we see. In a user namespace it
// starts as user and group 0 of that. When ctx ends before the program was
// executed, or anything fails, there is no child.
func Into(ctx context.Context, o Options) (pid int, err error) {
	// The namespaces that are compared, and left, are those of this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err = into(ctx, o)
	if err != nil {
		return 0, fmt.Errorf("start a process in the namespaces of process %d: %w", o.Target, err)
	}
	return pid, nil
}

func into(ctx context.Context, o Options) (int, error) {
	s, ours, err := newScout(&o)
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	// The scout's end lives on in the scout: ours must go before we wait for
	// its end of file.
	scout, err := s.start()
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = ours.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	pid, err := receive(ours)
	if err != nil {
		// Without an answer it may wait for something still.
		_ = unix.Kill(scout, unix.SIGKILL)
	}
	reap(scout)
	if err == nil && pid == 0 {
		err = errors.New("ended without a word")
	}
	if err == nil {
		err = release(ours, pid, o.Place)
	}
	if err != nil {
		return 0, errors.Join(err, context.Cause(ctx))
	}
	return pid, nil
}

// release lets the child execute the program, and waits until it did.
func release(ours *os.File, pid int, place func(int) error) (err error) {
	if place != nil {
		err = place(pid)
	}
	if err == nil {
		_, err = ours.Write([]byte{1})
	}
	if err == nil {
		// execve closes the child's end; an error comes as a message.
		_, err = receive(ours)
	}
	if err != nil {
		// Still our child and not yet waited for: the pid is its own.
		_ = unix.Kill(pid, unix.SIGKILL)
		reap(pid)
	}
	return err
}

func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// receive takes one message: a pid, an error, or 0 for the end of file.
func receive(ours *os.File) (pid int, err error) {
	var buf [unsafe.Sizeof(message{})]byte
	n, err := ours.Read(buf[:])
	if errors.Is(err, io.EOF) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("hear from the scout: %w", err)
	}
	var m message
	if _, err := binary.Decode(buf[:n], binary.NativeEndian, &m); err != nil {
		return 0, err
	}
	if m.Errno == 0 {
		return int(m.Pid), nil
	}
	return 0, &Error{Step: m.Step.String(), Err: explain(m.Step, syscall.Errno(m.Errno))}
}

func explain(s step, errno syscall.Errno) error {
	switch {
	case s == stepClone && errno == unix.ENOMEM:
		return fmt.Errorf("%w (the first process of the pid namespace has ended)", errno)
	case s == stepSetns && errno == unix.EINVAL:
		return fmt.Errorf("%w (a kernel before Linux 5.8, or a user namespace that we are in already)", errno)
	case (s == stepUser || s == stepGroup) && errno == unix.EINVAL:
		return fmt.Errorf("%w (the user namespace does not map 0)", errno)
	case s == stepSetns && errno == unix.ESRCH:
		return fmt.Errorf("%w (the process has ended)", errno)
	}
	return errno
}

// newScout prepares all that the scout needs, as it can allocate nothing.
// ours is our end of the socket to it.
func newScout(o *Options) (s *scout, ours *os.File, err error) {
	if o.Exe == nil || len(o.Args) == 0 {
		return nil, nil, errors.New("nothing to execute")
	}
	s = &scout{empty: new(byte), keep: o.Capabilities}
	if s.argv, err = syscall.SlicePtrFromStrings(o.Args); err != nil {
		return nil, nil, fmt.Errorf("arguments: %w", err)
	}
	if s.envv, err = syscall.SlicePtrFromStrings(o.Env); err != nil {
		return nil, nil, fmt.Errorf("environment: %w", err)
	}
	pidfd := o.PidFD
	if pidfd == nil {
		fd, err := unix.PidfdOpen(o.Target, 0)
		if err != nil {
			return nil, nil, os.NewSyscallError("pidfd_open", err)
		}
		pidfd = os.NewFile(uintptr(fd), "pidfd")
		s.owned = append(s.owned, pidfd)
	}
	if s.flags = o.Namespaces; s.flags == 0 {
		if s.flags, err = differing(o.Target, pidfd); err != nil {
			s.close()
			return nil, nil, err
		}
	}
	s.limit = inheritedFileLimit()
	if s.cgroup = o.Cgroup; s.cgroup != nil {
		s.args = cloneArgs{flags: unix.CLONE_INTO_CGROUP, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(s.cgroup.Fd())}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.close()
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	s.owned = append(s.owned, theirs)
	s.files = append(s.files, o.Files...)
	s.files = append(s.files, o.Exe, pidfd, theirs)
	for _, f := range s.files {
		s.fds = append(s.fds, int(f.Fd()))
	}
	// Only our end: Go's poller makes a deadline possible.
	_ = unix.SetNonblock(pair[0], true)
	return s, os.NewFile(uintptr(pair[0]), "socket"), nil
}

func (s *scout) close() {
	for _, f := range s.owned {
		f.Close()
	}
}

// start makes the scout. ForkLock keeps others from having descriptors open
// that are not close-on-exec yet.
func (s *scout) start() (pid int, err error) {
	defer s.close()
	syscall.ForkLock.Lock()
	p, errno := s.fork()
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(s)
	if errno != 0 {
		return 0, os.NewSyscallError("clone", errno)
	}
	return int(p), nil
}

// inheritedFileLimit is the soft RLIMIT_NOFILE that we were started with. Go
// raises it at every start, remembers the old one, and restores it for what
// os/exec starts; a failing syscall.Exec restores it, too, which is the one way
// to see it. Then it is raised again, by a call that Go does not notice.
func inheritedFileLimit() unix.Rlimit {
	var raised, inherited unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		return unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	}
	_ = syscall.Exec("", nil, nil)
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &inherited); err != nil {
		inherited = raised
	}
	_, _, _ = unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&raised)), 0, 0, 0)
	return inherited
}
