package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"crucible/images"
)

func newImagePackCommand(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "pack [flags] NAME[@N]... | --all [NAME...]",
		Short: "Keep the memory of images once, compressed",
		Long: `Replace the memory pages of images by references into packs, where each page is
kept once for all images of all containers, compressed; pages of zeros are not kept
at all. So the second image of a program takes what has changed since the first. It
needs nothing of the kernel, and no parent.

A packed image is the same for every other command: a restore unpacks it into
temporary files, and nothing but its place on disk changes. The plain pages are
deleted only after the packed ones have been read back and have the same digest.
` + "`crucible image usage`" + ` shows what images take, ` + "`crucible image prune`" + ` frees what
none needs any more.

Exit status: 0 success, 1 it failed, 3 no such image, 6 an image is damaged, or is
being restored from; it stays as it is.`,
		Example:           "  crucible image pack web\n  crucible image pack --all web\n  crucible checkpoint --pack web",
		ValidArgsFunction: a.imageNames(true),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && !all {
				return misuse("expected the name of an image, or --all, got nothing")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return runImagePack(c.Context(), a, args, all) },
	}
	c.Flags().BoolVar(&all, "all", false, "pack all images of the containers NAME, or of all containers")
	a.jsonFlag(c)
	return c
}

// packRow is an image in the answer of `crucible image pack`. It is of pages of
// 4096 bytes; without any the image was packed before.
type packRow struct {
	Image    string `json:"image"`
	Pages    int    `json:"pages"`
	Zero     int    `json:"zeroPages"`
	Known    int    `json:"knownPages"` // that the store had
	New      int    `json:"newPages"`
	Replaced int64  `json:"replaced"` // bytes
	Written  int64  `json:"written"`  // bytes
	Took     int64  `json:"tookNs"`
}

func (r packRow) String() string {
	if r.Pages == 0 {
		return r.Image + ": nothing to pack"
	}
	return fmt.Sprintf("%s: %s in %s (of %d pages %d are new, %d of zeros), %s", r.Image, formatSize(r.Replaced), formatSize(r.Written),
		r.Pages, r.New, r.Zero, inMS(r.Took))
}

func runImagePack(ctx context.Context, a *app, args []string, all bool) error {
	refs, missing, err := toPack(a.images(), args, all)
	if err != nil {
		return err
	}
	rows, errs := []packRow{}, []error{missing}
	progress := a.progress()
	for _, ref := range refs {
		if ctx.Err() != nil {
			break
		}
		progress("pack " + ref)
		r, err := packImage(ctx, a.images(), ref)
		if err == nil {
			rows = append(rows, *r)
		}
		errs = append(errs, err)
	}
	progress("")
	return errors.Join(a.print(a.json, rows, func() error {
		for _, r := range rows {
			fmt.Fprintln(a.stdout, r)
		}
		return nil
	}), errors.Join(errs...), ctx.Err())
}

// packImage packs one image.
func packImage(ctx context.Context, store images.Store, ref string) (*packRow, error) {
	i, err := store.Open(ref)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	p, err := i.Pack(ctx, images.PackOptions{})
	if err != nil {
		return nil, err
	}
	return &packRow{i.Ref(), p.Pages, p.Zero, p.Known, p.New, p.Replaced, p.Written, int64(time.Since(start))}, nil
}

// toPack are the images that arguments of `crucible image pack` name, oldest
// first; missing names the containers that have none.
func toPack(store images.Store, args []string, all bool) (refs []string, missing, err error) {
	for _, arg := range args {
		r, err := images.ParseRef(arg)
		if err != nil {
			return nil, nil, &usageError{err}
		}
		if all && r.Number != 0 {
			return nil, nil, misuse("pack image %s: --all takes the name of a container, without @N", arg)
		}
	}
	if !all {
		return args, nil, nil
	}
	if len(args) == 0 {
		if args, err = store.Names(); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range args {
		if _, err := store.Open(name); errors.Is(err, images.NotFound) {
			missing = errors.Join(missing, err)
			continue
		}
		numbers, err := store.Numbers(name)
		if err != nil {
			return nil, nil, err
		}
		for _, n := range numbers {
			refs = append(refs, images.Ref{Name: name, Number: n}.String())
		}
	}
	return refs, missing, nil
}
