package lab

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// File is one file of the guest's root file system.
type File struct {
	Path string // in the guest, absolute
	Mode fs.FileMode
	// One of these: contents, a file of the host, or where a symlink leads.
	// A directory has none.
	Data   []byte
	Source string
	Link   string
}

// The initramfs format, "newc": Documentation/driver-api/early-userspace/
// buffer-format.rst. Times, owners and inode numbers do not depend on where
// and when it is written, so equal files make equal bytes.

// newc writes a cpio archive of that format.
type newc struct {
	w     io.Writer
	inode int
	made  map[string]bool // directories
	err   error
}

// writeInitramfs writes one cpio archive with the files, in order, and the
// directories above them.
func writeInitramfs(w io.Writer, files []File) error {
	a := &newc{w: w, made: map[string]bool{"/": true}}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			return fmt.Errorf("write initramfs: %q is not a clean absolute path", f.Path)
		}
		a.parents(f.Path)
		if err := a.file(f); err != nil {
			return fmt.Errorf("write initramfs: %s: %w", f.Path, err)
		}
	}
	a.header("TRAILER!!!", 0, 0, 1)
	return a.err
}

func (a *newc) parents(p string) {
	var above []string
	for dir := path.Dir(p); !a.made[dir]; dir = path.Dir(dir) {
		above = append(above, dir)
	}
	for _, dir := range slices.Backward(above) {
		a.directory(dir, 0o755)
	}
}

func (a *newc) directory(p string, mode fs.FileMode) {
	if a.made[p] {
		return
	}
	a.made[p] = true
	bits := uint32(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	a.header(p, 0o040000|bits, 0, 2)
}

func (a *newc) file(f File) error {
	switch {
	case f.Mode.IsDir():
		a.directory(f.Path, f.Mode)
	case f.Link != "":
		a.header(f.Path, 0o120777, len(f.Link), 1)
		a.contents(strings.NewReader(f.Link), len(f.Link))
	case f.Source != "":
		source, err := os.Open(f.Source)
		if err != nil {
			return err
		}
		defer source.Close()
		info, err := source.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", f.Source)
		}
		if info.Size() > 1<<31 {
			return fmt.Errorf("%s is too large", f.Source)
		}
		a.header(f.Path, 0o100000|uint32(f.Mode.Perm()), int(info.Size()), 1)
		a.contents(source, int(info.Size()))
	default:
		a.header(f.Path, 0o100000|uint32(f.Mode.Perm()), len(f.Data), 1)
		a.contents(strings.NewReader(string(f.Data)), len(f.Data))
	}
	return a.err
}

// header writes one entry's header and name; the archive's own names have no
// leading slash.
func (a *newc) header(name string, mode uint32, size, links int) {
	if name != "TRAILER!!!" {
		name = strings.TrimPrefix(name, "/")
		a.inode++
	}
	h := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name)+1, 0)
	a.write(h + name + "\x00")
	a.pad(len(h) + len(name) + 1)
}

func (a *newc) contents(r io.Reader, size int) {
	if a.err != nil {
		return
	}
	n, err := io.CopyN(a.w, r, int64(size))
	if err != nil {
		a.err = fmt.Errorf("read %d of %d bytes: %w", n, size, err)
		return
	}
	a.pad(size)
}

func (a *newc) pad(size int) { a.write("\x00\x00\x00"[:-size&3]) }

func (a *newc) write(s string) {
	if a.err == nil {
		_, a.err = io.WriteString(a.w, s)
	}
}
