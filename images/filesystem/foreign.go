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

	"crucible/proto/imagepb"
)

// ConvertOptions of Convert. The zero value converts a plain tree.
type ConvertOptions struct {
	// Kind says whether the archive is to be that of an overlay's upper directory.
	Kind imagepb.ArchiveKind
	// Deleted are paths of files below it that the upper directory hides.
	Deleted []string
	// Directory says of a directory that the file does not have what it is
	// like; nil: it is root's, and open to all.
	Directory func(path string) *tar.Header
	// More entries that come behind those of the file, without content.
	More []*tar.Header
}

// Convert makes an archive of ours from a tar file of another program's, which
// may name a file before the directories that it is in, or not at all. What it
// holds is for Load to judge.
func Convert(ctx context.Context, r io.Reader, w io.Writer, o ConvertOptions) (Summary, error) {
	out := bufio.NewWriterSize(w, smallBuffer)
	c := &converter{tar: tar.NewWriter(out), made: map[string]bool{}, directory: o.Directory}
	err := c.all(ctx, tar.NewReader(r), o)
	if err == nil {
		err = c.tar.WriteHeader(endOf(c.sum.Entries))
	}
	if err == nil {
		err = c.tar.Close()
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return Summary{}, fmt.Errorf("convert archive: %w", err)
	}
	return c.sum, nil
}

// converter is a Convert at work.
type converter struct {
	tar  *tar.Writer
	made map[string]bool
	sum  Summary

	directory func(path string) *tar.Header
}

func (c *converter) all(ctx context.Context, r *tar.Reader, o ConvertOptions) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return noEOF(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := c.entry(h, r); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
	if err := c.parents("."); err != nil {
		return err
	}
	for _, h := range o.More {
		if err := c.entry(h, strings.NewReader("")); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
	for _, name := range o.Deleted {
		if o.Kind != imagepb.ArchiveKind_ARCHIVE_KIND_OVERLAY_UPPER {
			return errors.New("only an overlay hides files")
		}
		// A whiteout: see node.whiteout.
		h := &tar.Header{Typeflag: tar.TypeChar, Name: path.Clean("/" + name)[1:]}
		if err := c.entry(h, nil); err != nil {
			return fmt.Errorf("deleted file %q: %w", name, err)
		}
	}
	return nil
}

func (c *converter) entry(h *tar.Header, content io.Reader) error {
	p, err := clean(h.Name)
	if err != nil {
		return err
	}
	if c.made[p] {
		if h.Typeflag == tar.TypeDir {
			return nil // its children came first, with what a directory has by default
		}
		return errors.New("comes twice")
	}
	if p != "." {
		if err := c.parents(path.Dir(p)); err != nil {
			return err
		}
	}
	c.made[p] = true
	h.Name, h.Format = p, tar.FormatPAX
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if err := c.tar.WriteHeader(h); err != nil {
		return err
	}
	c.sum.Entries++
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	n, err := io.Copy(c.tar, content)
	c.sum.Bytes += n
	return err
}

// parents makes the directories that an entry is in.
func (c *converter) parents(dir string) error {
	if c.made[dir] {
		return nil
	}
	h := &tar.Header{Mode: 0o755}
	if c.directory != nil {
		h = c.directory(dir)
	}
	h.Typeflag, h.Name = tar.TypeDir, dir
	return c.entry(h, nil)
}
