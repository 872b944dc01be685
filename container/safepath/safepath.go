package safepath

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open opens what exists at a path inside root. The descriptor is O_PATH: it
// can be mounted onto, stat'ed and used as a starting point, not read. A
// trailing symbolic link is followed, inside root.
func Open(root *os.File, name string) (*os.File, error) {
	f, err := open(root, name)
	if err != nil {
		return nil, wrap("open", root, name, err)
	}
	return f, nil
}

// OpenDir opens a directory inside root, as an O_PATH descriptor, and makes
// it first, with its parents, where it is missing. perm is subject to the
// umask, as for mkdir(2).
func OpenDir(root *os.File, name string, perm os.FileMode) (*os.File, error) {
	f, err := open(root, name)
	if errors.Is(err, unix.ENOENT) {
		f, err = walk(root, name, missing{dirPerm: perm, leaf: leafDir})
	}
	if err != nil {
		return nil, wrap("open directory", root, name, err)
	}
	if isDir, err := isDirectory(f); err != nil || !isDir {
		f.Close()
		if err == nil {
			err = unix.ENOTDIR
		}
		return nil, wrap("open directory", root, name, err)
	}
	return f, nil
}

// OpenFile opens anything but a directory inside root, as an O_PATH
// descriptor, and makes an empty file first, with its parents (0755), where
// it is missing.
func OpenFile(root *os.File, name string) (*os.File, error) {
	f, err := open(root, name)
	if errors.Is(err, unix.ENOENT) {
		f, err = walk(root, name, missing{dirPerm: 0o755, leaf: leafFile})
	}
	if err != nil {
		return nil, wrap("open file", root, name, err)
	}
	if isDir, err := isDirectory(f); err != nil || isDir {
		f.Close()
		if err == nil {
			err = unix.EISDIR
		}
		return nil, wrap("open file", root, name, err)
	}
	return f, nil
}

// Path is the name under which system calls that take no descriptor reach f.
// It needs a /proc of the caller's own pid namespace.
func Path(f *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
}

// open lets the kernel resolve the path (openat2(2), Linux 5.6), and does it
// itself where the kernel cannot.
func open(root *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	// EAGAIN: something was renamed or mounted while ".." was resolved, and
	// the kernel could not tell whether that led out of the root.
	for range 64 {
		fd, err := unix.Openat2(int(root.Fd()), relative(name), &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path.Join(root.Name(), path.Clean("/"+name))), nil
		case err == unix.EAGAIN || err == unix.EINTR:
			continue
		// EPERM: a seccomp profile older than openat2.
		case err == unix.ENOSYS || err == unix.EPERM:
			return walk(root, name, missing{})
		default:
			return nil, err
		}
	}
	return walk(root, name, missing{})
}

// relative makes a path of the root one that openat2 takes: "" would need
// AT_EMPTY_PATH, which it lacks.
func relative(name string) string {
	if name == "" {
		return "."
	}
	return name
}

func isDirectory(f *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, err
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

func wrap(op string, root *os.File, name string, err error) error {
	return fmt.Errorf("%s %q in %s: %w", op, name, root.Name(), err)
}
