package edit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"crucible/images"
)

// patched tells whether a file of pages is to be written anew.
func (e *Edit) patched(file string) bool {
	for _, p := range e.patches {
		if path.Join(images.CRIU, p.file) == file {
			return true
		}
	}
	return false
}

// writeMemory writes the files of pages that the patches are for.
func (e *Edit) writeMemory(ctx context.Context, d *images.Draft) error {
	for n := 0; n < len(e.patches); {
		end := n
		for end < len(e.patches) && e.patches[end].file == e.patches[n].file {
			end++
		}
		if err := e.writePages(ctx, d, path.Join(images.CRIU, e.patches[n].file), e.patches[n:end]); err != nil {
			return err
		}
		n = end
	}
	return nil
}

func (e *Edit) writePages(ctx context.Context, d *images.Draft, file string, patches []patch) (err error) {
	in, err := e.image.OpenPages(file)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := d.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	const step = 16 << 20
	for at := int64(0); at < in.Size(); at += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := io.NewSectionReader(in, at, min(step, in.Size()-at))
		if _, err := io.Copy(out, part); err != nil {
			return fmt.Errorf("copy %s: %w", file, err)
		}
	}
	for _, p := range patches {
		if _, err := out.WriteAt(p.data, p.offset); err != nil {
			return fmt.Errorf("edit %s: %w", file, err)
		}
	}
	return nil
}
