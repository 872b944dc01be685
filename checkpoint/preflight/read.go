package preflight

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// reader reads /proc with as few system calls as can be: of a container with a
// hundred processes there are thousands of entries, and package os costs more
// than the kernel does (it offers every file to epoll first). Each goroutine
// has a reader of its own.
type reader struct {
	buf    []byte
	seen   map[uint64]bool   // pipes of which the end for writing was
	protos map[uint64]string // of sockets: the workers of a server have most in common
}

func newReader() *reader {
	return &reader{buf: make([]byte, 16<<10), seen: map[uint64]bool{}, protos: map[uint64]string{}}
}

// gone tells that a process has ended, or a descriptor was closed, while we
// were looking.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENXIO)
}

// openProcess opens /proc/PID. What is read through the descriptor is of this
// process and never of a later one with the same pid.
func openProcess(pid int) (int, error) {
	return unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// read reads a whole file. The result is good until the next call.
func (r *reader) read(dir int, name string) ([]byte, error) { return r.readFile(dir, name, false) }

// readOnce reads a file that the kernel shows all at once (single_open of
// fs/seq_file.c): status and fdinfo, not maps or mountinfo. It saves asking
// whether there is more.
func (r *reader) readOnce(dir int, name string) ([]byte, error) { return r.readFile(dir, name, true) }

func (r *reader) readFile(dir int, name string, once bool) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n := 0
	for {
		if n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		more, err := unix.Read(fd, r.buf[n:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		}
		n += more
		if more == 0 || once && n < len(r.buf) {
			return r.buf[:n], nil
		}
	}
}

// status reads that of a process or thread.
func (r *reader) status(dir int, name string) (proc.Status, error) {
	data, err := r.readOnce(dir, name)
	if err != nil {
		return proc.Status{}, err
	}
	return proc.ParseStatus(bytes.NewReader(data))
}

// file is [reader.read] for a parser that wants an [io.Reader] and gives a
// value back.
func file[T any](r *reader, dir int, name string, parse func(io.Reader) (T, error)) (T, error) {
	data, err := r.read(dir, name)
	if err != nil {
		var zero T
		return zero, err
	}
	return parse(bytes.NewReader(data))
}

func (r *reader) link(dir int, name string) (string, error) {
	for {
		n, err := unix.Readlinkat(dir, name, r.buf)
		if err != nil {
			return "", err
		}
		if n < len(r.buf) {
			return string(r.buf[:n]), nil
		}
		r.buf = make([]byte, 2*len(r.buf))
	}
}

func openDir(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// numbers lists an open directory of which the entries are numbers.
func (r *reader) numbers(dir int) ([]int, error) {
	names, err := r.entries(dir)
	if err != nil {
		return nil, err
	}
	all := make([]int, 0, len(names))
	for _, t := range names {
		if n, err := strconv.Atoi(t); err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

func (r *reader) entries(fd int) ([]string, error) {
	var all []string
	for {
		n, err := unix.ReadDirent(fd, r.buf)
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return all, nil
		}
		_, _, all = unix.ParseDirent(r.buf[:n], -1, all)
	}
}

// openIn opens a path as the container sees it: a link in it, which the
// container may put there at any time, does not lead out of root.
func openIn(root int, path string, flags int) (int, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err == unix.ENOSYS { // before 5.6; we only look, so that being led astray does no harm
		return unix.Openat(root, "./"+path, flags|unix.O_CLOEXEC, 0)
	}
	return fd, err
}

func (r *reader) namesIn(root int, path string) ([]string, error) {
	// O_NOATIME: to be looked at must not show.
	fd, err := openIn(root, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return r.entries(fd)
}

// inode is what stat says of a file.
type inode struct {
	mode   uint32
	nlink  uint32
	dev    uint64
	rdev   uint64
	ino    uint64
	blocks uint64 // of 512 bytes
	mount  int    // mount id, 0 where the kernel does not say (before 5.8)
}

func (i inode) kind() uint32 { return i.mode & unix.S_IFMT }

// stat follows a magic link. It asks no server for fresher values: one on the
// network, or a FUSE daemon inside the container, may be slow or dead.
func (r *reader) stat(dir int, name string) (inode, error) {
	return statx(dir, name, unix.AT_STATX_DONT_SYNC)
}

func statx(dir int, name string, flags int) (inode, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, name, flags, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st); err != nil {
		return inode{}, err
	}
	i := inode{
		mode: uint32(st.Mode), nlink: st.Nlink, ino: st.Ino, blocks: st.Blocks,
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor),
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		i.mount = int(st.Mnt_id)
	}
	return i, nil
}

// protocol is the name that the kernel has for a socket's protocol: "TCP",
// "MPTCPv6", "UNIX-STREAM" (net/socket.c, sockfs_xattr_get). It says more than
// any other file of /proc, and needs no netlink.
//
// By its full path, because there is no getxattrat(2) before Linux 6.13.
func (r *reader) protocol(pid, fd int) (string, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/fd/" + strconv.Itoa(fd)
	n, err := unix.Getxattr(path, "system.sockprotoname", r.buf[:64])
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(string(r.buf[:n]), "\x00")
	return name, nil
}

// shared is what the readers of one walk have in common.
type shared struct {
	asked atomic.Int32

	mu   sync.Mutex
	seen map[fileName]bool
}

type fileName struct {
	dev, name string
	ino       uint64
}

// first tells whether a mapped file was not seen before: a library is asked
// about once.
func (s *shared) first(m mapping) bool {
	key := fileName{dev: m.dev, name: m.name, ino: m.ino}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[key] {
		return false
	}
	s.seen[key] = true
	return true
}

// mayAskForLocks ends asking at some time: fdinfo is the most expensive
// question, and that a file is locked is but a remark.
//
// /proc/locks would tell in one go who has any. But whoever reads it stops
// everybody else on the host from locking, for ten milliseconds and more
// (fs/locks.c, locks_start: percpu_down_write).
func (s *shared) mayAskForLocks() bool { return s.asked.Add(1) <= 256 }
