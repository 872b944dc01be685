package workload

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func lockCases() []Case {
	return []Case{
		{Name: "flock", Question: "Does a lock by flock still keep others out?", program: flocked},
		{Name: "posix-lock", Question: "Does a POSIX lock of a range still keep others out of that range?", program: rangeLock(unix.F_SETLK, false)},
		{Name: "posix-lock-inherited", Question: "Does a POSIX lock survive by a descriptor that the parent has as well?", program: rangeLock(unix.F_SETLK, true),
			Known: &Known{StepCheck, "CRIU leaves a lock out whose open file another process has as well, without a word"}},
		{Name: "ofd-lock", Question: "Does a lock that belongs to an open file still keep others out?", program: rangeLock(unix.F_OFD_SETLK, false)},
		{Name: "lease", Question: "Does a lease on a file survive?", program: lease},
	}
}

func lockable() (*os.File, error) {
	f, err := os.Create("/srv/locked")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(pattern(100, 1))
	return f, err
}

// refused opens the file anew and wants that a lock cannot be had.
func refused(lock func(fd int) error) error {
	fd, err := unix.Open("/srv/locked", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch err := lock(fd); err {
	case unix.EAGAIN, unix.EACCES:
		return nil
	case nil:
		return fmt.Errorf("another got the lock as well")
	default:
		return fmt.Errorf("lock: %w", err)
	}
}

func flocked() (func() error, error) {
	f, err := lockable()
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, lacks("flock", err)
	}
	check := func() error {
		defer f.Fd() // keeps it open
		return refused(func(fd int) error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) })
	}
	return check, check()
}

// rangeLock locks a range in a child, since a process's own POSIX locks never
// keep it out: by an open file of the child's own, or one that it has inherited.
func rangeLock(command int, inherited bool) program {
	return func() (func() error, error) {
		f, err := lockable()
		if err != nil {
			return nil, err
		}
		lock := &unix.Flock_t{Type: unix.F_WRLCK, Start: 20, Len: 10}
		l, err := newLine()
		if err != nil {
			return nil, err
		}
		fd := f.Fd()
		path := []byte("/srv/locked\x00")
		if _, err := fork(func() {
			if !inherited {
				fd, _, _ = unix.RawSyscall6(unix.SYS_OPENAT, 0, uintptr(unsafe.Pointer(&path[0])), unix.O_RDWR, 0, 0, 0)
			}
			_, _, errno := unix.RawSyscall(unix.SYS_FCNTL, fd, uintptr(command), uintptr(unsafe.Pointer(lock)))
			l.tell(byte(errno))
			pause()
		}); err != nil {
			return nil, err
		}
		errno, err := l.answer()
		if err != nil {
			return nil, err
		}
		if errno != 0 {
			return nil, lacks("file locks", unix.Errno(errno), unix.EINVAL)
		}
		check := func() error {
			defer f.Fd()
			try := func(start int64) func(fd int) error {
				return func(fd int) error {
					// An open file's lock: a process's would be dropped by any close.
					return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: start, Len: 1})
				}
			}
			if err := first(refused(try(20)), refused(try(29))); err != nil {
				return err
			}
			if refused(try(30)) == nil {
				return fmt.Errorf("more is locked than the range")
			}
			return nil
		}
		return check, check()
	}
}

func lease() (func() error, error) {
	f, err := lockable()
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/srv/locked", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return nil, lacks("leases", err, unix.EINVAL)
	}
	return func() error {
		kind, err := unix.FcntlInt(uintptr(fd), unix.F_GETLEASE, 0)
		return first(err, same("kind of the lease", kind, unix.F_RDLCK))
	}, nil
}
