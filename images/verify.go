package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"crucible/images/digest"
	"crucible/proto/imagepb"
)

// VerifyOptions of Verify. The zero value works.
type VerifyOptions struct {
	// Workers is how many processors to use; 0: all. While CRIU restores from
	// the same image, one less is better.
	Workers int
	// Only tells which files to look at, by their paths; nil: all.
	Only func(path string) bool
	// Plain leaves out what is packed: who unpacks it checks it on the way.
	Plain bool
}

// within looks below one directory only.
func (o VerifyOptions) within(dir string) VerifyOptions {
	only := o.Only
	o.Only = func(file string) bool {
		return strings.HasPrefix(file, dir+"/") && (only == nil || only(file))
	}
	return o
}

// Verify reads every file of the image and compares it with the manifest, and so
// the memory in those that it builds on. It changes nothing, can be cancelled,
// and may run beside a restore. The error joins one *Error (Damaged) for every
// file that is missing, changed or not in the manifest; its Ref is the image
// that the file is of.
func (i *Image) Verify(ctx context.Context, o VerifyOptions) error {
	return errors.Join(i.verifyFiles(ctx, o), i.verifyParents(ctx, o))
}

func (i *Image) verifyFiles(ctx context.Context, o VerifyOptions) error {
	if err := i.checkDigests(); err != nil {
		return err
	}
	wanted := func(file string) bool {
		return notManifest(file) && !isIndex(file) && (o.Only == nil || o.Only(file))
	}
	files, err := digest.Tree(ctx, i.Dir(), digest.Options{Workers: o.Workers, Only: wanted})
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := os.Lstat(i.Dir()); gone != nil {
			return i.removed()
		}
	}
	if err != nil {
		return fmt.Errorf("verify image %s: %w", i.Ref(), err)
	}
	err = i.compare(files, wanted, func(want *imagepb.File) error {
		if o.Plain {
			return nil
		}
		return i.verifyPacked(ctx, want, o.Workers, nil)
	})
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("verify image %s: %w", i.Ref(), err)
	}
	return errors.Join(err, i.strayIndexes(o))
}

// checkDigests refuses digests that we cannot make.
func (i *Image) checkDigests() error {
	if a := i.Manifest.DigestAlgorithm; a != digest.Algorithm {
		return &Error{Kind: NewerFormat, Ref: i.Ref(), Text: fmt.Sprintf("is digested with %q, which this crucible does not know", a),
			Advice: "use the crucible that wrote it, or a newer one"}
	}
	return nil
}

// compare says how the files are not those of the manifest. One that is there by
// its index only is compared by packed.
func (i *Image) compare(files []digest.File, wanted func(file string) bool, packed func(*imagepb.File) error) error {
	have := make(map[string]digest.File, len(files))
	for _, f := range files {
		have[f.Path] = f
	}
	var errs []error
	for _, want := range i.Manifest.Files {
		if !wanted(want.Path) {
			continue
		}
		f, there := have[want.Path]
		delete(have, want.Path)
		if !there && packed != nil && i.isPacked(want.Path) {
			errs = append(errs, packed(want))
		} else if !there {
			errs = append(errs, i.damaged(want.Path, "is missing"))
		} else if text := difference(f, want); text != "" {
			errs = append(errs, i.damaged(want.Path, text))
		}
	}
	for _, f := range files {
		if _, extra := have[f.Path]; extra {
			errs = append(errs, i.damaged(f.Path, "does not belong to it"))
		}
	}
	return errors.Join(errs...)
}

// verifyPacked makes a packed file of pages again, page by page, and compares it
// with its digest. If each is not nil it gets the blocks: see [digest.Content].
func (i *Image) verifyPacked(ctx context.Context, want *imagepb.File, workers int, each func(block []byte, at int64) error) error {
	p, err := i.openPacked(want.Path)
	if err != nil {
		return err
	}
	defer p.Close()
	if uint64(p.Size()) != want.Size {
		return i.damaged(indexOf(want.Path), fmt.Sprintf("is of %d bytes, the file had %d", p.Size(), want.Size))
	}
	sum, err := digest.Content(ctx, p, p.Size(), workers, each)
	if err == nil && !bytes.Equal(sum[:], want.Digest) {
		err = i.damaged(want.Path, "has changed: what was unpacked has another digest")
	}
	return err
}

// strayIndexes are files below packed/ that are no index of a file of the image.
func (i *Image) strayIndexes(o VerifyOptions) error {
	var errs []error
	known := map[string]bool{}
	for _, f := range i.Manifest.Files {
		if IsPages(f.Path) {
			known[indexOf(f.Path)] = true
		}
	}
	dir := filepath.Join(i.Dir(), Indexes)
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		name, _ := filepath.Rel(i.Dir(), path)
		if name = filepath.ToSlash(name); !known[name] && (o.Only == nil || o.Only(name)) {
			errs = append(errs, i.damaged(name, "does not belong to it"))
		}
		return nil
	})
	return errors.Join(errs...)
}

// difference says how a file is not what the manifest says, or "".
func difference(have digest.File, want *imagepb.File) string {
	switch {
	case have.Link != want.Symlink && have.Link == "":
		return "is a file and was a symbolic link"
	case have.Link != want.Symlink && want.Symlink == "":
		return "is a symbolic link and was a file"
	case have.Link != want.Symlink:
		return fmt.Sprintf("leads to %q and led to %q", have.Link, want.Symlink)
	case have.Link != "":
		return ""
	case uint64(have.Size) != want.Size:
		return fmt.Sprintf("has %d bytes and had %d", have.Size, want.Size)
	case !bytes.Equal(have.Sum[:], want.Digest):
		return "has changed: its digest is another one"
	}
	return ""
}
