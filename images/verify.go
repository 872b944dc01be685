package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
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
}

// IsPages tells CRIU's files of memory pages, nearly all of an image, from the others.
func IsPages(file string) bool {
	ok, _ := path.Match(CRIU+"/pages-*.img", file)
	return ok
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
	wanted := func(file string) bool { return notManifest(file) && (o.Only == nil || o.Only(file)) }
	files, err := digest.Tree(ctx, i.Dir(), digest.Options{Workers: o.Workers, Only: wanted})
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := os.Lstat(i.Dir()); gone != nil {
			return i.removed()
		}
	}
	if err != nil {
		return fmt.Errorf("verify image %s: %w", i.Ref(), err)
	}
	return i.compare(files, wanted)
}

// checkDigests refuses digests that we cannot make.
func (i *Image) checkDigests() error {
	if a := i.Manifest.DigestAlgorithm; a != digest.Algorithm {
		return &Error{Kind: NewerFormat, Ref: i.Ref(), Text: fmt.Sprintf("is digested with %q, which this crucible does not know", a),
			Advice: "use the crucible that wrote it, or a newer one"}
	}
	return nil
}

// compare says how the files are not those of the manifest.
func (i *Image) compare(files []digest.File, wanted func(file string) bool) error {
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
		if !there {
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
