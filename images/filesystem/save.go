package filesystem

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"crucible/proto/imagepb"
)

// SaveOptions of Save. The zero value saves a plain tree.
type SaveOptions struct {
	// Kind says whether the tree is an overlay's upper directory.
	Kind imagepb.ArchiveKind
}

// Summary is what an archive holds.
type Summary struct {
	Entries int
	// Bytes of files' content; holes do not count.
	Bytes int64
}

// Save writes the tree below dir to w.
func Save(ctx context.Context, dir string, w io.Writer, o SaveOptions) (Summary, error) {
	out := bufio.NewWriterSize(w, smallBuffer)
	s := &saver{
		ctx: ctx, upper: o.Kind == imagepb.ArchiveKind_ARCHIVE_KIND_OVERLAY_UPPER,
		tar: tar.NewWriter(out), links: map[inode]string{}, buf: make([]byte, smallBuffer),
	}
	err := s.save(dir)
	if err == nil {
		err = s.tar.WriteHeader(endOf(s.sum.Entries))
	}
	if err == nil {
		err = s.tar.Close()
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return Summary{}, fmt.Errorf("save %s: %w", dir, err)
	}
	return s.sum, nil
}

// saver is a Save at work.
type saver struct {
	ctx   context.Context
	upper bool
	tar   *tar.Writer
	sum   Summary
	mount mountID
	links map[inode]string // the first name of a file that has several
	buf   []byte
}

// Most trees hold little; what holds more is copied in bigger steps.
const (
	smallBuffer = 16 << 10
	bigBuffer   = 256 << 10
)

type inode struct {
	major, minor uint32
	number       uint64
}

// mountID tells mounts apart; before Linux 5.8 it tells filesystems apart.
type mountID struct {
	id           uint64
	major, minor uint32
}

func mountOf(st *unix.Statx_t) mountID {
	m := mountID{major: st.Dev_major, minor: st.Dev_minor}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		m.id = st.Mnt_id
	}
	return m
}

// node is a file to be saved.
type node struct {
	parent int    // descriptor of its directory
	name   string // in there
	path   string // from the root of the tree, "." for itself
	unix.Statx_t
}

func (n *node) is(kind uint16) bool { return n.Mode&unix.S_IFMT == kind }

// whiteout: overlayfs.rst, "whiteouts and opaque directories".
func (n *node) whiteout() bool {
	return n.is(unix.S_IFCHR) && n.Rdev_major == 0 && n.Rdev_minor == 0
}

// proc is a path to the file that no symbolic link can lead elsewhere, for
// system calls that know no directory descriptors.
func (n *node) proc() string { return procPath(n.parent) + "/" + n.name }

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func (s *saver) save(dir string) error {
	root, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	n := &node{name: ".", path: ".", parent: root}
	if err := stat(n); err != nil {
		return err
	}
	s.mount = mountOf(&n.Statx_t)
	return s.tree(n, root)
}

func stat(n *node) error {
	const want = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID
	for {
		err := unix.Statx(n.parent, n.name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, want, &n.Statx_t)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("stat %s: %w", n.path, err)
		}
	}
}

// tree saves a directory, which is open, and what is in it.
func (s *saver) tree(n *node, dir int) error {
	if err := s.other(n); err != nil {
		return err
	}
	names, err := s.names(dir)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", n.path, err)
	}
	for _, name := range names {
		child := &node{parent: dir, name: name, path: path.Join(n.path, name)}
		if err := stat(child); err != nil {
			return err
		}
		if err := s.node(child); err != nil {
			return err
		}
	}
	return nil
}

// names lists a directory in order.
func (s *saver) names(dir int) (names []string, err error) {
	for {
		n, err := unix.ReadDirent(dir, s.buf)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			slices.Sort(names)
			return names, err
		}
		_, _, names = unix.ParseDirent(s.buf[:n], -1, names)
	}
}

// node saves a file of any type.
func (s *saver) node(n *node) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if mountOf(&n.Statx_t) != s.mount {
		return s.mountPoint(n)
	}
	if n.is(unix.S_IFDIR) {
		dir, err := openIn(n.parent, n.name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return fmt.Errorf("open %s: %w", n.path, err)
		}
		defer unix.Close(dir)
		return s.tree(n, dir)
	}
	// Overlayfs links whiteouts to one another; that saves inodes, no more.
	if n.Nlink > 1 && !n.whiteout() {
		id := inode{n.Dev_major, n.Dev_minor, n.Ino}
		if first, ok := s.links[id]; ok {
			s.sum.Entries++
			return s.header(&tar.Header{Typeflag: tar.TypeLink, Name: n.path, Linkname: first})
		}
		s.links[id] = n.path
	}
	if n.is(unix.S_IFREG) && n.Size > 0 {
		return s.file(n)
	}
	return s.other(n)
}

// mountPoint saves the place of a mount: what it covers cannot be seen.
func (s *saver) mountPoint(n *node) error {
	s.sum.Entries++
	if n.is(unix.S_IFDIR) {
		return s.header(&tar.Header{Typeflag: tar.TypeDir, Name: n.path + "/", Mode: 0o755, ModTime: mtime(n)})
	}
	return s.header(&tar.Header{Typeflag: tar.TypeReg, Name: n.path, Mode: 0o644, ModTime: mtime(n)})
}

// other saves whatever has no content.
func (s *saver) other(n *node) error {
	h := s.describe(n)
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag = tar.TypeReg
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, n.path+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		var err error
		if h.Linkname, err = readlink(n); err != nil {
			return fmt.Errorf("read link %s: %w", n.path, err)
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFSOCK:
		h.Typeflag = tar.TypeReg
		h.PAXRecords[recordSocket] = "1"
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	default:
		return fmt.Errorf("%s: has an unknown type (mode %#o)", n.path, n.Mode)
	}
	if n.is(unix.S_IFCHR) || n.is(unix.S_IFBLK) {
		h.Devmajor, h.Devminor = int64(n.Rdev_major), int64(n.Rdev_minor)
	}
	if err := s.attributes(h, n, pathXattrs(n.proc())); err != nil {
		return err
	}
	s.sum.Entries++
	return s.header(h)
}

// file saves a regular file with content.
func (s *saver) file(n *node) error {
	f, err := openIn(n.parent, n.name, unix.O_RDONLY|unix.O_NOATIME)
	if err == unix.EPERM { // open(2): only the owner may ask for O_NOATIME
		f, err = openIn(n.parent, n.name, unix.O_RDONLY)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", n.path, err)
	}
	defer unix.Close(f)
	h := s.describe(n)
	h.Typeflag, h.Size = tar.TypeReg, int64(n.Size)
	if err := s.attributes(h, n, fileXattrs(f)); err != nil {
		return err
	}
	s.sum.Entries++
	if n.Blocks*512 < n.Size {
		parts, err := dataParts(f, h.Size)
		if err != nil {
			return fmt.Errorf("find the holes of %s: %w", n.path, err)
		}
		if len(parts) != 1 || parts[0].length != h.Size {
			return s.sparse(h, f, parts)
		}
	}
	if err := s.header(h); err != nil {
		return err
	}
	return s.content(f, part{0, h.Size}, n.path)
}

// content copies a part of a file to the archive.
func (s *saver) content(f int, p part, name string) error {
	if len(s.buf) < bigBuffer && p.length > int64(len(s.buf)) {
		s.buf = make([]byte, bigBuffer)
	}
	for p.length > 0 {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Pread(f, s.buf[:min(int64(len(s.buf)), p.length)], p.offset)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if n == 0 {
			return fmt.Errorf("read %s: has become shorter meanwhile", name)
		}
		if _, err := s.tar.Write(s.buf[:n]); err != nil {
			return err
		}
		p.offset += int64(n)
		p.length -= int64(n)
		s.sum.Bytes += int64(n)
	}
	return nil
}

// describe begins the entry of a file.
func (s *saver) describe(n *node) *tar.Header {
	return &tar.Header{
		Name: n.path, Mode: int64(n.Mode & 0o7777), Uid: int(n.Uid), Gid: int(n.Gid),
		ModTime: mtime(n), PAXRecords: map[string]string{},
	}
}

func mtime(n *node) time.Time { return time.Unix(n.Mtime.Sec, int64(n.Mtime.Nsec)) }

func (s *saver) header(h *tar.Header) error {
	h.Format = tar.FormatPAX
	if h.ModTime.IsZero() {
		h.ModTime = time.Unix(0, 0)
	}
	if err := s.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("archive %s: %w", h.Name, err)
	}
	return nil
}

// openIn opens a file of a directory, not what a symbolic link leads to. Plain
// descriptors: what an os.File adds costs as much as saving a small file.
func openIn(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openDir opens the directory that the caller named.
func openDir(dir string) (int, error) {
	for {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func readlink(n *node) (string, error) {
	for size := int(n.Size) + 1; ; size *= 2 {
		b := make([]byte, size)
		got, err := unix.Readlinkat(n.parent, n.name, b)
		if err != nil {
			return "", err
		}
		if got < size {
			return string(b[:got]), nil
		}
	}
}
