package host

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// TimeError: the kernel enters a new time namespace by fork(2) only. From Linux
// 6.2 on execve(2) does it, too (kernel commit 2b5f9dad32ed), which is how a
// container's init gets into the one that it has made: it is the first process
// of its pid namespace and cannot fork. A program that was executed outside of
// it could start no thread, either.
type TimeError struct{}

func (e *TimeError) Error() string {
	return "this kernel enters a time namespace by fork alone, not by execve"
}

// Hint says what to do about it.
func (e *TimeError) Hint() string {
	return "boot Linux 6.2 or newer, or leave out --time (the bundle's time namespace); restoring a container in one works"
}

// EntersTime tries whether a program that is executed after
// unshare(CLONE_NEWTIME) is in the new namespace; if not, that is a *TimeError.
// The child stops, traced, at the end of its exec: not one instruction of it
// has run when it is killed. It takes a millisecond.
func EntersTime() error {
	return onThread(func() error {
		pid, err := syscall.ForkExec("/proc/self/exe", []string{"none"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{
			Ptrace: true, Unshareflags: unix.CLONE_NEWTIME,
		}})
		if err != nil {
			return fmt.Errorf("make a time namespace: %w", err)
		}
		defer func() {
			unix.Kill(pid, unix.SIGKILL)
			reap(pid)
		}()
		// ForkExec returns in the middle of the exec, when it closes files.
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
			return fmt.Errorf("wait for the end of an exec: %w (status %#x)", err, status)
		}
		is, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/time", pid))
		should, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/time_for_children", pid))
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if is != should {
			return &TimeError{}
		}
		return nil
	})
}

// askTime is for the row of the time namespace.
func askTime() answer {
	if a := namespaceVerdict(tryChild(&syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWTIME})); a.state != Good {
		return a
	}
	err := EntersTime()
	var other *TimeError
	switch {
	case err == nil:
		return good("")
	case errors.As(err, &other):
		return missing("%v", err)
	}
	return unknown(err)
}
