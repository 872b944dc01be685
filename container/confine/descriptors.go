package confine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CloseFDs marks every descriptor from the given one on to be closed by the
// execve, so that nothing of the host is left open in the container
// (CVE-2024-21626). They stay open until then: Go's runtime uses some.
func CloseFDs(from int) error {
	err := unix.CloseRange(uint(from), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	// close_range is Linux 5.9 (before: ENOSYS, and EPERM where a seccomp
	// profile is older than the call), its CLOEXEC flag 5.11 (before: EINVAL).
	if err == unix.ENOSYS || err == unix.EINVAL || err == unix.EPERM {
		err = closeEach(from)
	}
	if err != nil {
		return fmt.Errorf("close descriptors from %d on: %w", from, err)
	}
	return nil
}

func closeEach(from int) error {
	proc, err := OpenProc()
	if err != nil {
		return err
	}
	defer proc.Close()
	dir, err := proc.openSelf("fd", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			return fmt.Errorf("descriptor %q: %w", name, err)
		}
		if fd < from {
			continue
		}
		// EBADF: closed since the listing was made.
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil && err != unix.EBADF {
			return &os.PathError{Op: "fcntl", Path: name, Err: err}
		}
	}
	return nil
}

// CheckCwd refuses a working directory outside of the root: a chdir through
// a leaked descriptor leads there (CVE-2024-21626), and getcwd(2) says so by
// the prefix "(unreachable)".
func CheckCwd() error {
	buf := make([]byte, unix.PathMax)
	// Package os would take $PWD for it, and package syscall hides the prefix.
	n, err := unix.Getcwd(buf)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("working directory: %w (removed, or outside of the container's root)", err)
	}
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	if cwd := string(buf[:max(n-1, 0)]); !strings.HasPrefix(cwd, "/") {
		return fmt.Errorf("working directory: %q is outside of the container's root", cwd)
	}
	return nil
}
