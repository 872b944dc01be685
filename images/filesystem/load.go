package filesystem

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Load makes the files of an archive below dir, and gives dir itself what the
// archive says of it. Directories may exist, nothing else may.
func Load(ctx context.Context, r io.Reader, dir string) (Summary, error) {
	root, err := openDir(dir)
	if err != nil {
		return Summary{}, fmt.Errorf("load %s: %w", dir, err)
	}
	defer unix.Close(root)
	l := &loader{
		ctx: ctx, root: root, parent: -1, buf: make([]byte, smallBuffer),
		tar: reader{Reader: tar.NewReader(bufio.NewReaderSize(r, smallBuffer))},
	}
	defer l.leave()
	if err := l.load(); err != nil {
		return l.sum, fmt.Errorf("load %s: %w", dir, err)
	}
	return l.sum, nil
}

// loader is a Load at work.
type loader struct {
	ctx  context.Context
	tar  reader
	root int
	sum  Summary
	buf  []byte

	// dirs get their attributes at the end: a mode that forbids writing, a
	// default ACL, or the time of modification would not fit while they are
	// filled.
	dirs []directory

	// parent is the directory of the last entry: the next is often there, too.
	parent     int // -1: none
	parentPath string
}

type directory struct {
	path string
	h    *tar.Header
}

func (l *loader) load() error {
	for {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		h, err := l.tar.next()
		if err == io.EOF {
			return l.finish()
		}
		if err != nil {
			return err
		}
		if err := l.entry(h); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
		l.sum.Entries++
	}
}

func (l *loader) entry(h *tar.Header) error {
	p, err := clean(h.Name)
	if err != nil {
		return err
	}
	if p == "." {
		if h.Typeflag != tar.TypeDir {
			return errors.New("is the directory itself, and no directory")
		}
		l.dirs = append(l.dirs, directory{p, h})
		return nil
	}
	for record := range h.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return errors.New("is a sparse file of GNU tar's, whose holes would be read as zeros")
		}
	}
	parent, err := l.enter(path.Dir(p))
	if err != nil {
		return err
	}
	name := path.Base(p)
	switch h.Typeflag {
	case tar.TypeReg:
		if h.PAXRecords[recordSocket] == "" {
			return l.file(parent, name, h)
		}
		err = unix.Mknodat(parent, name, unix.S_IFSOCK|0o600, 0)
	case tar.TypeDir:
		l.dirs = append(l.dirs, directory{p, h})
		return makeDir(parent, name)
	case tar.TypeLink:
		return l.link(parent, name, h)
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, parent, name)
	case tar.TypeFifo:
		err = unix.Mknodat(parent, name, unix.S_IFIFO|0o600, 0)
	case tar.TypeChar, tar.TypeBlock:
		err = makeDevice(parent, name, h)
	default:
		return fmt.Errorf("has the unknown type %q", h.Typeflag)
	}
	if err != nil {
		return err
	}
	return apply(h, target{parent: parent, name: name})
}

// enter opens a directory of the tree.
func (l *loader) enter(dir string) (int, error) {
	if l.parent >= 0 && l.parentPath == dir {
		return l.parent, nil
	}
	f, err := l.beneath(dir)
	if err != nil {
		return -1, fmt.Errorf("open directory %s: %w", dir, err)
	}
	l.leave()
	l.parent, l.parentPath = f, dir
	return f, nil
}

func (l *loader) leave() {
	if l.parent >= 0 {
		unix.Close(l.parent)
		l.parent = -1
	}
}

// beneath opens a directory of the tree, wherever symbolic links in it lead.
func (l *loader) beneath(dir string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(l.root, dir, &how)
		if err != unix.EINTR && err != unix.EAGAIN { // openat2(2): a rename meanwhile
			return fd, err
		}
	}
}

func makeDir(parent int, name string) error {
	err := unix.Mkdirat(parent, name, 0o700)
	if err != unix.EEXIST {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.EEXIST
	}
	return nil
}

func makeDevice(parent int, name string, h *tar.Header) error {
	kind := uint32(unix.S_IFCHR)
	if h.Typeflag == tar.TypeBlock {
		kind = unix.S_IFBLK
	}
	// mknod(2) takes 12 bits of major and 20 of minor.
	if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
		return fmt.Errorf("is the device %d:%d, which cannot be", h.Devmajor, h.Devminor)
	}
	return unix.Mknodat(parent, name, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

// link makes a hard link to a file of the tree.
func (l *loader) link(parent int, name string, h *tar.Header) error {
	to, err := clean(h.Linkname)
	if err != nil {
		return fmt.Errorf("is a link to %q: %w", h.Linkname, err)
	}
	dir, err := l.beneath(path.Dir(to))
	if err == nil {
		defer unix.Close(dir)
		// Without AT_SYMLINK_FOLLOW a symbolic link is linked itself.
		err = unix.Linkat(dir, path.Base(to), parent, name, 0)
	}
	if err != nil {
		return fmt.Errorf("is a link to %q: %w", h.Linkname, err)
	}
	return nil
}

// file makes a regular file.
func (l *loader) file(parent int, name string, h *tar.Header) error {
	f, err := unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	if _, sparse := h.PAXRecords[recordSparse]; sparse {
		err = l.sparse(f, h)
	} else {
		err = l.content(f, part{0, h.Size})
	}
	if err != nil {
		return err
	}
	return apply(h, target{file: f})
}

// content copies a part of a file out of the archive.
func (l *loader) content(f int, p part) error {
	if len(l.buf) < bigBuffer && p.length > int64(len(l.buf)) {
		l.buf = make([]byte, bigBuffer)
	}
	for p.length > 0 {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		n, err := l.tar.Read(l.buf[:min(int64(len(l.buf)), p.length)])
		if n == 0 && err != nil {
			return fmt.Errorf("read content: %w", noEOF(err))
		}
		if err := writeAt(f, l.buf[:n], p.offset); err != nil {
			return err
		}
		p.offset += int64(n)
		p.length -= int64(n)
		l.sum.Bytes += int64(n)
	}
	return nil
}

func writeAt(f int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(f, b, at)
		if err != nil && err != unix.EINTR {
			return err
		}
		b, at = b[max(n, 0):], at+int64(max(n, 0))
	}
	return nil
}

// finish gives the directories their attributes, the innermost first.
func (l *loader) finish() error {
	l.leave()
	for i := len(l.dirs) - 1; i >= 0; i-- {
		d := l.dirs[i]
		f, err := l.beneath(d.path)
		if err == nil {
			err = apply(d.h, target{file: f})
			unix.Close(f)
		}
		if err != nil {
			return fmt.Errorf("entry %q: %w", d.h.Name, err)
		}
	}
	return nil
}
