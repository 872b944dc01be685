package images

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"crucible/proto/imagepb"
)

// taken are the files that a draft has from another image.
type taken struct {
	from  *Image
	files map[string]*imagepb.File
}

// Take gives the draft the files of another image, but those that a function
// names: they are to be written anew. No byte is copied: the two images share
// them (link(2)), as files that nobody ever changes can be; only what is packed is
// unpacked. Commit compares them with the other's digests, so that a damaged image
// is not made a whole one. An incremental image's parent becomes the draft's.
func (d *Draft) Take(ctx context.Context, from *Image, except func(file string) bool) error {
	if d.lock == nil || d.taken != nil || from.store.Dir != d.store.Dir {
		return fmt.Errorf("image of %s: cannot take files of %s", d.name, from.Ref())
	}
	parent, err := from.Parent()
	if err != nil {
		return err
	}
	if parent != nil {
		if _, err := d.BuildOn(parent); err != nil {
			return err
		}
	}
	d.taken = &taken{from, map[string]*imagepb.File{}}
	for _, f := range from.Manifest.Files {
		if except(f.Path) {
			continue
		}
		if err := d.take(ctx, f); err != nil {
			return fmt.Errorf("take %s of image %s: %w", f.Path, from.Ref(), noSpace(d.store.Dir, err))
		}
	}
	return nil
}

func (d *Draft) take(ctx context.Context, f *imagepb.File) error {
	if !filepath.IsLocal(f.Path) {
		return d.taken.from.damaged(f.Path, "is no file of it")
	}
	to := filepath.Join(d.Dir(), f.Path)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if f.Symlink != "" {
		return os.Symlink(f.Symlink, to)
	}
	d.taken.files[f.Path] = f
	if d.taken.from.isPacked(f.Path) {
		return d.taken.from.unpack(ctx, f, to, 0)
	}
	return os.Link(filepath.Join(d.taken.from.Dir(), f.Path), to)
}

// check compares a file, as it is now, with what its image says of it.
func (t *taken) check(now *imagepb.File) error {
	if t == nil {
		return nil
	}
	was, ok := t.files[now.Path]
	if !ok || was.Size == now.Size && bytes.Equal(was.Digest, now.Digest) {
		return nil
	}
	return t.from.damaged(now.Path, "has changed: its digest is another one")
}

// Named is how another image's manifest names this one.
func (i *Image) Named() (*imagepb.Parent, error) {
	sum, err := i.sum()
	if err != nil {
		return nil, err
	}
	return &imagepb.Parent{Ref: i.Ref(), ManifestDigest: sum}, nil
}
