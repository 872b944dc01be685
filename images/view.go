package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"crucible/images/pack"
	"crucible/proto/imagepb"
)

// View is a directory in which CRIU finds its files of an image, and of those
// that it builds on, as it has written them.
type View struct {
	dir   string
	draft *Draft // nil: it is the image's own directory
}

// ViewOptions of View. The zero value works.
type ViewOptions struct {
	// Workers is how many processors to use; 0: all.
	Workers int
}

// View shows the image to CRIU. If nothing of it and of its parents is packed,
// the view is the image's own directory. Else it is a temporary one on the same
// filesystem: what is packed is unpacked there, compared with its digest on the
// way, with holes for pages of zeros; all the rest is hard links, which take no room.
//
//	<store>/.drafts/web-123/2/criu/            of web@2
//	<store>/.drafts/web-123/1/criu/            of web@1, by ../../1/criu
//
// The caller has the image held. After Close, or when the process has died, nothing
// of the view is left, but for those who have its files open.
func (i *Image) View(ctx context.Context, o ViewOptions) (*View, error) {
	chain, err := i.Chain()
	if err != nil {
		return nil, err
	}
	packed := false
	for _, c := range chain {
		for _, f := range c.Manifest.Files {
			packed = packed || c.isPacked(f.Path)
		}
	}
	if !packed {
		return &View{dir: i.CRIUDir()}, nil
	}
	d, err := i.store.makeDraft(i.Name)
	if err != nil {
		return nil, fmt.Errorf("unpack image %s: %w", i.Ref(), noSpace(i.store.Dir, err))
	}
	v := &View{filepath.Join(d.base, strconv.Itoa(i.Number), CRIU), d}
	// CRIU's tasks may be another user's: see fileMode. To others the drafts are closed.
	err = os.Chmod(d.base, 0o755)
	for _, c := range chain {
		if err == nil {
			err = c.show(ctx, filepath.Join(d.base, strconv.Itoa(c.Number)), o)
		}
	}
	if err == nil {
		return v, nil
	}
	err = errors.Join(err, v.Close())
	var known *Error
	if errors.As(err, &known) || ctx.Err() != nil {
		return nil, err
	}
	return nil, fmt.Errorf("unpack image %s: %w", i.Ref(), noSpaceFor(i.store.Dir, "the restore needs as much as the image's memory, until the container runs", err))
}

// CRIUDir is the directory of CRIU's files.
func (v *View) CRIUDir() string { return v.dir }

// Temporary is what must be removed in the end, and the file that keeps others
// from doing so as long as it is open in any process; nothing if the view is the
// image itself.
func (v *View) Temporary() (dir string, lock *os.File) {
	if v.draft == nil {
		return "", nil
	}
	return v.draft.base, v.draft.lock
}

// Close ends the view.
func (v *View) Close() error {
	if v.draft == nil {
		return nil
	}
	return v.draft.Discard()
}

// Leave gives the view up to who has its lock, or the next command to sweep.
func (v *View) Leave() {
	if v.draft != nil && v.draft.lock != nil {
		v.draft.lock.Close()
		v.draft.lock = nil
	}
}

// show fills one member's directory of a view.
func (i *Image) show(ctx context.Context, dir string, o ViewOptions) error {
	for _, d := range []string{dir, filepath.Join(dir, CRIU)} {
		if err := errors.Join(os.Mkdir(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			return err
		}
	}
	for _, f := range i.Manifest.Files {
		if !strings.HasPrefix(f.Path, CRIU+"/") {
			continue
		}
		from, to := filepath.Join(i.Dir(), f.Path), filepath.Join(dir, f.Path)
		var err error
		switch {
		case !filepath.IsLocal(f.Path) || filepath.Dir(f.Path) != CRIU:
			err = i.damaged(Manifest, fmt.Sprintf("names a file %q", f.Path))
		case f.Symlink != "":
			err = os.Symlink(f.Symlink, to)
		case i.isPacked(f.Path):
			err = i.unpack(ctx, f, to, o.Workers)
		default:
			if err = os.Link(from, to); os.IsNotExist(err) {
				err = i.damaged(f.Path, "is missing")
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unpack writes a packed file of pages.
func (i *Image) unpack(ctx context.Context, f *imagepb.File, to string, workers int) error {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := errors.Join(out.Chmod(0o444), out.Truncate(int64(f.Size))); err != nil {
		return err
	}
	return i.verifyPacked(ctx, f, workers, func(block []byte, at int64) error {
		return writeSparse(out, block, at)
	})
}

// writeSparse writes what is not pages of zeros, neighbours at once.
func writeSparse(f *os.File, b []byte, at int64) error {
	zero := make([]byte, pack.PageSize)
	isZero := func(page int) bool {
		p := b[page*pack.PageSize:]
		p = p[:min(len(p), pack.PageSize)]
		return bytes.Equal(p, zero[:len(p)])
	}
	pages := (len(b) + pack.PageSize - 1) / pack.PageSize
	for page := 0; page < pages; {
		if isZero(page) {
			page++
			continue
		}
		first := page
		for page < pages && !isZero(page) {
			page++
		}
		from, end := first*pack.PageSize, min(page*pack.PageSize, len(b))
		if _, err := f.WriteAt(b[from:end], at+int64(from)); err != nil {
			return err
		}
	}
	return nil
}
