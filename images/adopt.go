package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"crucible/container/name"
	"crucible/images/digest"
	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// Exists: another image has that number already.
const Exists Kind = "there already"

// ReadManifest reads the bytes of a manifest, before there is an image: ref is
// what errors call it. They are those of [Store.Open].
func ReadManifest(ref Ref, b []byte) (*imagepb.Manifest, error) {
	i := &Image{Name: ref.Name, Number: ref.Number, Manifest: &imagepb.Manifest{}}
	if err := frame.Decode(b, i.Manifest); err != nil {
		return nil, i.unreadable(Manifest, err)
	}
	return i.Manifest, errors.Join(i.checkFormat(), i.checkDigests())
}

// checkFormat refuses what a newer crucible wrote.
func (i *Image) checkFormat() error {
	m := i.Manifest
	if m.MinReader <= frame.Edition {
		return nil
	}
	return &Error{Kind: NewerFormat, Ref: i.Ref(), Advice: "use the crucible that wrote it, or a newer one",
		Text: fmt.Sprintf("needs a reader of edition %d, this is edition %d (it was written by crucible %s)", m.MinReader, frame.Edition, m.GetWriter().GetCrucible())}
}

// AdoptOptions of Adopt. The zero value works.
type AdoptOptions struct {
	// Number of the image to be; 0: the next.
	Number int
	// Hashed is what has been hashed while it was written.
	Hashed digest.Followed
}

// Adopt makes the draft an image with the manifest that it had elsewhere, byte
// for byte: a child knows its parent by the digest of it, and a signature is
// one of it. Every file must be what the manifest says, and what it builds on
// must be in the store, under the number that it has there. After an error the
// draft is still there, to be discarded.
func (d *Draft) Adopt(ctx context.Context, manifest []byte, o AdoptOptions) (*Image, error) {
	if d.lock == nil || d.parent != nil {
		return nil, fmt.Errorf("adopt image of %s: the draft has ended, or builds on another one", d.name)
	}
	i, err := d.adopt(ctx, manifest, o)
	if err != nil {
		return nil, fmt.Errorf("adopt image of %s: %w", d.name, noSpace(d.store.Dir, err))
	}
	_ = d.Discard() // see Commit
	return i, nil
}

func (d *Draft) adopt(ctx context.Context, manifest []byte, o AdoptOptions) (*Image, error) {
	ref := Ref{d.name, o.Number}
	m, err := ReadManifest(ref, manifest)
	if err != nil {
		return nil, err
	}
	files, err := digest.Tree(ctx, d.Dir(), digest.Options{Followed: o.Hashed, Only: notManifest})
	if err != nil {
		return nil, err
	}
	i := &Image{Name: d.name, Number: o.Number, Manifest: m, store: d.store}
	if err := i.compare(files, notManifest, nil); err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		if f.Symlink == "" {
			if err := os.Chmod(filepath.Join(d.Dir(), f.Path), fileMode(f.Path)); err != nil {
				return nil, err
			}
		}
	}
	if d.store.Sync {
		if err := syncTree(ctx, d.Dir()); err != nil {
			return nil, err
		}
	}
	return d.publish(ctx, m, manifest, o.Number)
}

// NoSpace marks an error in writing the draft's files that comes from a full disk.
func (d *Draft) NoSpace(err error) error { return noSpace(d.store.Dir, err) }

// hasParent looks for what the image is going to build on, under the store's lock.
func (i *Image) hasParent() error {
	p := i.Manifest.GetParent()
	if p == nil {
		return nil
	}
	missing := func(text string) error {
		return &Error{Kind: Damaged, Ref: i.Ref(), Text: text,
			Advice: "bring that image, too: an export without --no-parents has it"}
	}
	r, err := ParseRef(p.Ref)
	if err != nil || r.Number < 1 {
		return missing(fmt.Sprintf("names %q as the image that it builds on", p.Ref))
	}
	r.Name = i.Name
	parent, err := i.store.open(r)
	if errors.Is(err, NotFound) {
		return missing("builds on " + r.String() + ", which is not there")
	}
	if err != nil {
		return err
	}
	sum, err := parent.sum()
	switch {
	case err != nil:
		return err
	case !bytes.Equal(sum, p.ManifestDigest):
		return missing("builds on " + r.String() + ", and another image has that number here")
	case i.Number <= r.Number: // see Parent
		return missing("cannot build on " + r.String() + ", which has a higher number")
	}
	return nil
}

// number is that of an image to be, under the store's lock: the next one if it
// is 0.
func (d *Draft) number(wanted int) (int, error) {
	numbers, err := d.store.Numbers(d.name)
	switch {
	case err != nil:
		return 0, err
	case slices.Contains(numbers, wanted):
		return 0, Taken(Ref{d.name, wanted})
	case wanted > 0:
		return wanted, nil
	case len(numbers) > 0:
		return numbers[len(numbers)-1] + 1, nil
	}
	return 1, nil
}

// Taken is the error of an image whose number another one has.
func Taken(r Ref) *Error {
	return &Error{Kind: Exists, Ref: r.String(), Text: "another image has that number",
		Advice: "choose another name (--name)"}
}

// Same tells whether an image has this manifest.
func (i *Image) Same(sum []byte) bool {
	own, err := i.sum()
	return err == nil && bytes.Equal(own, sum)
}

// Rename says whose image the draft is going to be, if that was not known when
// it was begun.
func (d *Draft) Rename(container string) error {
	if err := name.ValidName(container); err != nil {
		return fmt.Errorf("draft image: %w", err)
	}
	if d.parent != nil {
		return fmt.Errorf("draft image of %s: builds on another one", d.name)
	}
	d.name = container
	return nil
}
