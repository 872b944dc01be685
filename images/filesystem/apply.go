package filesystem

import (
	"archive/tar"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// target is a file that was made a moment ago: a descriptor, or (FIFOs, devices
// and symbolic links had better not be opened) a name in a directory.
type target struct {
	file   int
	parent int // if there is a name
	name   string
}

func (t target) proc() string {
	if t.name == "" {
		return procPath(t.file)
	}
	return procPath(t.parent) + "/" + t.name
}

// apply gives a file its owner, attributes, mode and time: in this order, as
// chown(2) clears capabilities and the set-user-ID bit, and setting an ACL
// changes the mode.
func apply(h *tar.Header, t target) error {
	if err := t.chown(h.Uid, h.Gid); err != nil {
		return fmt.Errorf("set owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	all, err := xattrsOf(h)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := t.setxattr(name, []byte(all[name])); err != nil {
			return fmt.Errorf("set attribute %s: %w%s", name, err, xattrAdvice(name, err))
		}
	}
	// A symbolic link has no mode (symlink(7)).
	if h.Typeflag != tar.TypeSymlink {
		if err := t.chmod(uint32(h.Mode) & 0o7777); err != nil {
			return fmt.Errorf("set mode %#o: %w", h.Mode, err)
		}
	}
	if err := t.utime(h); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

func xattrAdvice(name string, err error) string {
	if err == unix.ENOTSUP && strings.HasPrefix(name, "user.") {
		return " (tmpfs has user attributes from Linux 6.6 on)"
	}
	return ""
}

func (t target) chown(uid, gid int) error {
	if t.name == "" {
		return unix.Fchown(t.file, uid, gid)
	}
	return unix.Fchownat(t.parent, t.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

func (t target) setxattr(name string, value []byte) error {
	if t.name == "" {
		return unix.Fsetxattr(t.file, name, value, 0)
	}
	return unix.Lsetxattr(t.proc(), name, value, 0)
}

// chmod by name would follow a symbolic link; but the name was made by us, and
// is none.
func (t target) chmod(mode uint32) error {
	if t.name == "" {
		return unix.Fchmod(t.file, mode)
	}
	return unix.Fchmodat(t.parent, t.name, mode, 0)
}

func (t target) utime(h *tar.Header) error {
	m, err := unix.TimeToTimespec(h.ModTime)
	if err != nil {
		return err
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, m}
	if t.name == "" {
		return unix.UtimesNanoAt(unix.AT_FDCWD, t.proc(), times, 0)
	}
	return unix.UtimesNanoAt(t.parent, t.name, times, unix.AT_SYMLINK_NOFOLLOW)
}
