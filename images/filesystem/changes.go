package filesystem

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// Change is a path that the container added ('A'), modified ('M') or deleted
// ('D').
type Change struct {
	Kind byte
	// Path from the container's root, with a leading slash.
	Path string
}

func (c Change) String() string { return string(c.Kind) + " " + c.Path }

// Changes lists what an archive of an overlay's upper directory changes, in
// its order. With lower, the lower directory, the kinds are certain. Without,
// what overlayfs noted as copied up (trusted.overlay.origin; it cannot where
// the lower filesystem has no file handles) counts as modified and the rest as
// added, also what replaced something; and a change of a directory's own mode
// or owner is not told from a change of something in it, and left out.
func Changes(ctx context.Context, r io.Reader, lower string) ([]Change, error) {
	c := &changes{tar: reader{Reader: tar.NewReader(r)}}
	if lower != "" {
		root, err := os.OpenRoot(lower)
		if err != nil {
			return nil, fmt.Errorf("list changes: %w", err)
		}
		defer root.Close()
		c.lower = root
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := c.tar.next()
		if err == io.EOF {
			return c.list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list changes: %w", err)
		}
		if err := c.entry(h); err != nil {
			return nil, fmt.Errorf("list changes: entry %q: %w", h.Name, err)
		}
	}
}

type changes struct {
	tar   reader
	lower *os.Root
	list  []Change
	// fresh is the directory, with a slash, below which everything is new.
	fresh string
}

func (c *changes) entry(h *tar.Header) error {
	p, err := clean(h.Name)
	if err != nil || p == "." {
		return err
	}
	add := func(kind byte) { c.list = append(c.list, Change{kind, path.Join("/", p)}) }
	switch {
	case c.fresh != "" && strings.HasPrefix(p, c.fresh):
		add('A')
	case h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0:
		add('D')
	case h.Typeflag != tar.TypeDir:
		existed, err := c.existed(h, p)
		if err != nil {
			return err
		}
		if existed {
			add('M')
		} else {
			add('A')
		}
	default:
		return c.dir(h, p, add)
	}
	return nil
}

// dir handles a directory. An opaque one hides what was there.
func (c *changes) dir(h *tar.Header, p string, add func(byte)) error {
	existed, err := c.existed(h, p)
	if err != nil {
		return err
	}
	opaque := overlayMark(h, "opaque") == "y"
	switch {
	case !existed:
		add('A')
		c.fresh = p + "/"
	case opaque:
		add('M')
		c.fresh = p + "/"
	case c.lower != nil:
		info, err := c.lower.Lstat(p)
		if err != nil {
			return err
		}
		if !sameDir(info, h) {
			add('M')
		}
	}
	return nil
}

// existed says whether the path is one of the lower directory.
func (c *changes) existed(h *tar.Header, p string) (bool, error) {
	if c.lower == nil {
		return overlayMark(h, "origin") != "", nil
	}
	_, err := c.lower.Lstat(p)
	if err == nil {
		return true, nil
	}
	// A part of the path may be a file below, or lead elsewhere: then the path
	// itself was not there.
	var pe *os.PathError
	if errors.As(err, &pe) {
		return false, nil
	}
	return false, err
}

func overlayMark(h *tar.Header, mark string) string {
	for _, class := range []string{"trusted.", "user."} {
		if v, ok := h.PAXRecords[recordXattr+class+"overlay."+mark]; ok {
			return v
		}
	}
	return ""
}

// sameDir says whether a directory has the mode and owner of an entry.
func sameDir(info fs.FileInfo, h *tar.Header) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == h.Uid && int(st.Gid) == h.Gid && int64(st.Mode&0o7777) == h.Mode&0o7777 && st.Mode&syscall.S_IFMT == syscall.S_IFDIR
}
