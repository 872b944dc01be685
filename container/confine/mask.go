package confine

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"crucible/container/safepath"

	"golang.org/x/sys/unix"
)

// isNull says whether an open file is the null device, whatever its name.
func isNull(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	rdev := uint64(st.Rdev) // uint32 on some architectures
	// Documentation/admin-guide/devices.txt: 1 char, 3 = /dev/null
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(rdev) != 1 || unix.Minor(rdev) != 3 {
		return fmt.Errorf("%s is not the null device", f.Name())
	}
	return nil
}

// MaskPath hides a path of root: a file behind the root's own null device, a
// directory behind an empty one, read-only, which the caller gives. A path
// that does not exist needs no mask.
func MaskPath(root *os.File, name string, empty *os.File) error {
	target, dir, err := maskTarget(root, name)
	if target == nil {
		return wrapPath("mask", name, err)
	}
	defer target.Close()
	if dir {
		const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
		return wrapPath("mask", name, bind(empty, target, attrs, false))
	}
	null, err := safepath.Open(root, "/dev/null")
	if err != nil {
		return wrapPath("mask", name, err)
	}
	defer null.Close()
	// An image may put anything at this name, and would then have it mounted
	// over, say, /proc/sys/kernel/core_pattern (CVE-2025-31133). What counts
	// is what was opened, and what was opened is what gets mounted.
	if err := isNull(null); err != nil {
		return wrapPath("mask", name, err)
	}
	return wrapPath("mask", name, bind(null, target, 0, false))
}

// ReadonlyPath makes a path of root read-only, with every mount below it
// (before Linux 5.12: without them). A path that does not exist cannot be
// written.
func ReadonlyPath(root *os.File, name string) error {
	target, _, err := maskTarget(root, name)
	if target == nil {
		return wrapPath("make read-only", name, err)
	}
	defer target.Close()
	return wrapPath("make read-only", name, bind(target, target, unix.MOUNT_ATTR_RDONLY, true))
}

func wrapPath(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, name, err)
}

// maskTarget opens what is to be covered: (nil, nil) if there is nothing. The
// last name must not be a symbolic link: the link would be followed now, and
// could be another one by the time somebody reads the path.
func maskTarget(root *os.File, name string) (target *os.File, dir bool, err error) {
	clean := path.Clean("/" + name)
	if clean == "/" {
		return nil, false, errors.New("is the root itself")
	}
	parent, err := safepath.Open(root, path.Dir(clean))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer parent.Close()
	fd, err := unix.Openat(int(parent.Fd()), path.Base(clean), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, false, os.NewSyscallError("fstat", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		f.Close()
		return nil, false, errors.New("is a symbolic link")
	case unix.S_IFDIR:
		return f, true, nil
	}
	return f, false, nil
}

// bind mounts source onto target, both by descriptor, and adds attributes to
// those that the source's mount has.
func bind(source, target *os.File, attrs uint64, recursive bool) error {
	flags, at := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH), uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
		at |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(int(source.Fd()), "", flags)
	if err == unix.ENOSYS || err == unix.EPERM && !haveOpenTree() {
		return bindOld(source, target, attrs, recursive)
	}
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(tree)
	if attrs != 0 {
		err := unix.MountSetattr(tree, "", at, &unix.MountAttr{Attr_set: attrs})
		if err == unix.ENOSYS { // before Linux 5.12
			return bindOld(source, target, attrs, recursive)
		}
		if err != nil {
			return os.NewSyscallError("mount_setattr", err)
		}
	}
	err = unix.MoveMount(tree, "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// haveOpenTree tells a refusal from a seccomp profile that is older than the
// call: on a descriptor that cannot be, the kernel itself says EBADF.
func haveOpenTree() bool {
	_, err := unix.OpenTree(-1, "", unix.AT_EMPTY_PATH)
	return err == unix.EBADF
}

// bindOld does it with mount(2), through names in /proc, which has to be one.
func bindOld(source, target *os.File, attrs uint64, recursive bool) error {
	if !attrsKnown(attrs) {
		return fmt.Errorf("attributes %#x: %w", attrs, errors.ErrUnsupported)
	}
	fds, err := os.OpenFile("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer fds.Close()
	if err := isProc(fds); err != nil {
		return err
	}
	flags := uintptr(unix.MS_BIND)
	if recursive {
		flags |= unix.MS_REC
	}
	if err := unix.Mount(safepath.Path(source), safepath.Path(target), "", flags, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if attrs == 0 {
		return nil
	}
	return remount(source, target, attrs)
}

func attrsKnown(attrs uint64) bool {
	const known = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	return attrs&^known == 0
}

// remount adds attributes to the mount of source that is on top of target, not
// to those below it. target's descriptor still means what is under the mount,
// so it takes the name to get there, and a look at what was found. MS_BIND |
// MS_REMOUNT replaces all flags: those the mount has are given again (in a
// user namespace they are locked anyway, mount_namespaces(7)).
func remount(source, target *os.File, attrs uint64) error {
	name, err := os.Readlink(safepath.Path(target))
	if err != nil {
		return err
	}
	top, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(top)
	var found, want unix.Stat_t
	if err := errors.Join(unix.Fstat(top, &found), unix.Fstat(int(source.Fd()), &want)); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if found.Dev != want.Dev || found.Ino != want.Ino {
		return fmt.Errorf("%s was exchanged meanwhile", name)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(top, &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT)
	for _, f := range []struct{ st, attr, ms uint64 }{
		{unix.ST_RDONLY, unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY},
		{unix.ST_NOSUID, unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID},
		{unix.ST_NODEV, unix.MOUNT_ATTR_NODEV, unix.MS_NODEV},
		{unix.ST_NOEXEC, unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC},
		{unix.ST_NOATIME, 0, unix.MS_NOATIME},
		{unix.ST_NODIRATIME, 0, unix.MS_NODIRATIME},
		{unix.ST_RELATIME, 0, unix.MS_RELATIME},
	} {
		if uint64(fs.Flags)&f.st != 0 || attrs&f.attr != 0 {
			flags |= uintptr(f.ms)
		}
	}
	err = unix.Mount("", "/proc/self/fd/"+strconv.Itoa(top), "", flags, "")
	return os.NewSyscallError("remount", err)
}
