package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

func good(format string, args ...any) answer {
	return answer{state: Good, detail: fmt.Sprintf(format, args...)}
}

func missing(format string, args ...any) answer {
	return answer{state: Missing, detail: fmt.Sprintf(format, args...)}
}

// unknown tells a user without rights where to find out, and not how to change
// a kernel that may well be in order.
func unknown(err error) answer {
	a := answer{state: Unknown, detail: err.Error()}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		a.remedy = "run crucible doctor as root"
	}
	return a
}

// verdict turns the outcome of a try into an answer. Only the errors that the
// kernel documents as "I do not have that" mean missing; ENOSYS always does.
// Any other error, permission first of all, tells nothing about the kernel.
func verdict(err error, no ...unix.Errno) answer {
	var errno unix.Errno
	switch {
	case err == nil:
		return good("")
	case errors.As(err, &errno) && (errno == unix.ENOSYS || slices.Contains(no, errno)):
		return missing("%v", err)
	}
	return unknown(err)
}

// onThread runs f on a thread that is thrown away afterwards, so that f may
// unshare(2) what it likes: namespaces that f made end with the thread.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the runtime ends the thread
		if unix.Gettid() == unix.Getpid() {
			// Except for this one: the main thread is only parked for good
			// (runtime, mexit), and /proc/self would show what f unshared.
			// While it is held here, another goroutine gets another thread.
			defer runtime.UnlockOSThread()
			done <- onThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// apart runs f on a thread of its own that has fresh namespaces.
func apart(namespaces int, f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(namespaces); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if namespaces&unix.CLONE_NEWNS != 0 {
			// Mounts made from here on are not to reach the host.
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("make mounts private: %w", err)
			}
		}
		return f()
	})
}
