package safepath

import (
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is the kernel's own limit (MAXSYMLINKS in linux/namei.h).
const maxLinks = 40

// leafKind is what walk makes of a missing last component.
type leafKind int

const (
	leafNone leafKind = iota
	leafDir
	leafFile
)

// missing says what walk does with names that do not exist. The zero value
// creates nothing.
type missing struct {
	leaf    leafKind
	dirPerm fs.FileMode
}

// walk resolves a path one name at a time, each relative to the descriptor of
// the directory before it and never through a symbolic link. ".." goes back
// to a descriptor that is held already instead of asking the kernel, so a
// directory that is renamed meanwhile leads nowhere new.
//
//	root ── var ── run ─(link to "/run")     stack: root
//	root ── run                              stack: root, run
func walk(root *os.File, name string, create missing) (*os.File, error) {
	if len(name) >= unix.PathMax {
		return nil, unix.ENAMETOOLONG
	}
	w := walker{root: int(root.Fd()), create: create, todo: split(name)}
	defer w.close()
	for len(w.todo) > 0 {
		if err := w.step(); err != nil {
			return nil, err
		}
	}
	fd, err := w.take()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path.Join(root.Name(), path.Clean("/"+name))), nil
}

type walker struct {
	root   int
	stack  []int // descriptors below root, the last one is where we stand
	todo   []string
	create missing
	links  int
}

// split keeps a trailing slash as a last ".", which only a directory has.
func split(name string) []string {
	var parts []string
	for _, p := range strings.Split(name, "/") {
		if p != "" && p != "." {
			parts = append(parts, p)
		}
	}
	if len(parts) > 0 && (strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.")) {
		parts = append(parts, ".")
	}
	return parts
}

func (w *walker) here() int {
	if len(w.stack) == 0 {
		return w.root
	}
	return w.stack[len(w.stack)-1]
}

func (w *walker) step() error {
	name := w.todo[0]
	w.todo = w.todo[1:]
	if name == "." || name == ".." {
		return w.dots(name)
	}
	fd, err := w.openName(name)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		w.stack = append(w.stack, fd)
		return nil
	}
	defer unix.Close(fd)
	return w.follow(fd)
}

// dots checks what the kernel checks: only a directory has "." and "..".
func (w *walker) dots(name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(w.here(), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	if name == ".." && len(w.stack) > 0 {
		unix.Close(w.here())
		w.stack = w.stack[:len(w.stack)-1]
	}
	return nil
}

// follow puts a link's target in front of what is left to do.
func (w *walker) follow(link int) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	buf := make([]byte, unix.PathMax)
	// An empty name reads the link that the descriptor itself is (Linux 2.6.39).
	n, err := unix.Readlinkat(link, "", buf)
	if err != nil {
		return err
	}
	target := string(buf[:n])
	if strings.HasPrefix(target, "/") {
		w.close()
	}
	w.todo = append(split(target), w.todo...)
	return nil
}

// openName opens one name, or makes it. O_EXCL and mkdir follow no link; what
// somebody else put there in between is opened like anything that existed.
func (w *walker) openName(name string) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) { return unix.Openat(w.here(), name, flags, 0) })
	if err != unix.ENOENT || w.create.leaf == leafNone {
		return fd, err
	}
	// A link to nowhere leads here too, and what it names is made.
	if len(w.todo) == 0 && w.create.leaf == leafFile {
		var made int
		made, err = retry(func() (int, error) {
			return unix.Openat(w.here(), name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, 0o644)
		})
		if err == nil {
			unix.Close(made)
		}
	} else {
		err = unix.Mkdirat(w.here(), name, uint32(w.create.dirPerm.Perm()))
	}
	if err != nil && err != unix.EEXIST {
		return -1, err
	}
	return retry(func() (int, error) { return unix.Openat(w.here(), name, flags, 0) })
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// take hands the last descriptor out; the root itself is duplicated.
func (w *walker) take() (int, error) {
	if len(w.stack) == 0 {
		return unix.FcntlInt(uintptr(w.root), unix.F_DUPFD_CLOEXEC, 3)
	}
	fd := w.here()
	w.stack = w.stack[:len(w.stack)-1]
	return fd, nil
}

// close goes back to the root.
func (w *walker) close() {
	for _, fd := range w.stack {
		unix.Close(fd)
	}
	w.stack = w.stack[:0]
}
