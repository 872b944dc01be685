package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"crucible/images/blake3"
	"crucible/proto/imagepb"
)

// ParentLink is the symbolic link, in the directory of CRIU's files, by which
// CRIU finds the files of the image before (criu/include/image.h: CR_PARENT_LINK).
const ParentLink = "parent"

// BuildOn makes an image of the same container the draft's parent, and returns
// the directory of its files of CRIU's, relative to the draft's: the same text
// leads there from the image to be. The parent cannot be removed any more.
//
//	<store>/.drafts/web-123/image/criu/   ../../1/criu: by a link web-123/1
//	<store>/web/2/criu/                   ../../1/criu
func (d *Draft) BuildOn(parent *Image) (link string, err error) {
	if d.lock == nil || d.parent != nil || parent.Name != d.name || parent.store.Dir != d.store.Dir {
		return "", fmt.Errorf("image of %s: cannot build on %s", d.name, parent.Ref())
	}
	if d.hold, err = parent.Hold(); err != nil {
		return "", err
	}
	sum, err := parent.sum()
	if err != nil {
		return "", err
	}
	n := strconv.Itoa(parent.Number)
	if err := os.Symlink(filepath.Join("..", "..", d.name, n), filepath.Join(d.base, n)); err != nil {
		return "", fmt.Errorf("image of %s: %w", d.name, err)
	}
	d.parent = &imagepb.Parent{Ref: parent.Ref(), ManifestDigest: sum}
	return filepath.Join("..", "..", n, CRIU), nil
}

// sum is the digest of the image's manifest.
func (i *Image) sum() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(i.Dir(), Manifest))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	sum := blake3.Sum(b)
	return sum[:], nil
}

// ParentRef is the image that this one builds on, as NAME@N; "" if it stands alone.
func (i *Image) ParentRef() string { return i.parent().String() }

// parent is the image of the number that the manifest says, beside this one.
func (i *Image) parent() Ref {
	r, err := ParseRef(i.Manifest.GetParent().GetRef())
	if err != nil {
		return Ref{}
	}
	return Ref{i.Name, r.Number}
}

// Parent opens the image that this one builds on, or returns nil if it stands
// alone. Another image than the one that it was made from is an error.
func (i *Image) Parent() (*Image, error) {
	if i.Manifest.GetParent() == nil {
		return nil, nil
	}
	r := i.parent()
	// An image comes after its parent: no chain is without an end.
	if r.Number < 1 || r.Number >= i.Number {
		return nil, i.damaged(Manifest, fmt.Sprintf("names %q as the image that it builds on", i.Manifest.Parent.Ref))
	}
	broken := func(text string) error {
		return &Error{Kind: Damaged, Ref: i.Ref(), Text: "builds on " + r.String() + ", which " + text,
			Advice: "take another image (`crucible image list " + i.Name + "`), or put " + r.String() + " back as it was"}
	}
	p, err := i.store.open(r)
	if errors.Is(err, NotFound) {
		return nil, broken("is not there")
	}
	if err != nil {
		return nil, err
	}
	sum, err := p.sum()
	if err == nil && !bytes.Equal(sum, i.Manifest.Parent.ManifestDigest) {
		err = broken("is another image than when this one was made")
	}
	return p, err
}

// Chain is the image and all that it builds on, the newest first.
func (i *Image) Chain() (all []*Image, err error) {
	for i != nil {
		all = append(all, i)
		if i, err = i.Parent(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Children are the images that build on this one directly, as NAME@N.
func (i *Image) Children() []string { return i.store.children(Ref{i.Name, i.Number}) }

func (s Store) children(r Ref) (refs []string) {
	all, _ := s.List(r.Name) // a damaged one builds on nothing any more
	for _, o := range all {
		if o.parent() == r {
			refs = append(refs, o.Ref())
		}
	}
	return refs
}

// CheckWhole says whether the image can be restored: one of a pre-dump cannot.
func (i *Image) CheckWhole() error {
	if !i.Manifest.GetTraits().GetPreDump() {
		return nil
	}
	e := &Error{Kind: PreDump, Ref: i.Ref(), Text: "is of a pre-dump: it holds memory only, and cannot be restored by itself",
		Advice: "`crucible checkpoint --parent " + i.Ref() + " " + i.Name + "` writes an image that can"}
	all, _ := i.store.List(i.Name)
	for _, o := range slices.Backward(all) {
		if !o.Manifest.GetTraits().GetPreDump() {
			e.Advice = "`crucible restore " + o.Ref() + "` restores the newest image that can be"
			break
		}
	}
	return e
}

// verifyParents verifies the memory in what the image builds on.
func (i *Image) verifyParents(ctx context.Context, o VerifyOptions) error {
	p, err := i.Parent()
	if p == nil || err != nil {
		return err
	}
	return errors.Join(p.verifyFiles(ctx, o.within(CRIU)), p.verifyParents(ctx, o))
}
