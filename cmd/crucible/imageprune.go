package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"crucible/container"
	"crucible/images"
)

type pruneOptions struct {
	keep          int
	dryRun, force bool
}

func newImagePruneCommand(a *app) *cobra.Command {
	var o pruneOptions
	c := &cobra.Command{
		Use:   "prune [flags] [NAME]",
		Short: "Remove what no image needs, and old images",
		Long: `Remove what no image needs: packs and pages of packs that are left over from
images that were removed, and what killed commands have left behind.

With --keep N also remove images, of container NAME or of all containers: all but
the newest N of each that can be restored. An image stays in any case while it is
being read, while a newer one builds on it, and if a stopped container was last
checkpointed to it. On a terminal it asks first, unless --force is given.

Exit status: 0 success, 1 it failed, 6 something is damaged: what may belong to it
stays.`,
		Example:           "  crucible image prune\n  crucible image prune --keep 5 web\n  crucible image prune --keep 1 --dry-run",
		Args:              maxArgs(1, "the name of a container, or none"),
		ValidArgsFunction: a.imageOwners,
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("keep") && o.keep < 1 {
				return misuse("--keep %d: must be 1 or more; `crucible image rm --all` removes all", o.keep)
			}
			if len(args) == 1 && o.keep == 0 {
				return misuse("expected --keep N with the name of a container")
			}
			return runImagePrune(c.Context(), a, strings.Join(args, ""), o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.keep, "keep", 0, "remove images, but not the newest N of each container")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be removed, and do nothing")
	f.BoolVarP(&o.force, "force", "f", false, "do not ask")
	a.jsonFlag(c)
	return c
}

// pruneResult is the answer of `crucible image prune`.
type pruneResult struct {
	Images    []prunedImage `json:"images"`
	Kept      []prunedImage `json:"kept"`
	Packs     int           `json:"packs"`
	Rewritten int           `json:"rewrittenPacks"`
	Freed     int64         `json:"freed"` // bytes
	DryRun    bool          `json:"dryRun,omitempty"`
}

type prunedImage struct {
	Image string `json:"image"`
	Bytes int64  `json:"bytes,omitempty"`
	Why   string `json:"why,omitempty"` // it stays
}

func runImagePrune(ctx context.Context, a *app, name string, o pruneOptions) error {
	if o.keep > 0 && !o.force && !o.dryRun && a.interactive() {
		dry := o
		dry.dryRun = true
		r, err := a.prune(ctx, name, dry)
		if err != nil {
			return err
		}
		if len(r.Images) > 0 {
			if yes, err := a.confirmPrune(r); !yes {
				return err
			}
		}
	}
	a.progress()("prune")
	r, err := a.prune(ctx, name, o)
	a.progress()("")
	if r == nil {
		return err
	}
	return errors.Join(a.print(a.json, r, func() error { return a.printPruned(r) }), err)
}

// prune prunes the store. There is a result also after an error.
func (a *app) prune(ctx context.Context, name string, o pruneOptions) (*pruneResult, error) {
	needed, err := a.imagesOfStopped()
	if err != nil && o.keep > 0 {
		return nil, err
	}
	p, err := a.images().Prune(ctx, images.PruneOptions{
		Name: name, Keep: o.keep, DryRun: o.dryRun,
		Needed: func(ref string) string { return needed[ref] },
	})
	r := &pruneResult{Images: []prunedImage{}, Kept: []prunedImage{}, Packs: p.Packs, Rewritten: p.Rewritten, Freed: p.Freed, DryRun: o.dryRun}
	for _, i := range p.Images {
		r.Images = append(r.Images, prunedImage{Image: i.Ref, Bytes: i.Bytes})
	}
	for _, i := range p.Kept {
		r.Kept = append(r.Kept, prunedImage{Image: i.Ref, Why: i.Why})
	}
	return r, err
}

// imagesOfStopped are the images that stopped containers were last checkpointed
// to, and why they stay.
func (a *app) imagesOfStopped() (map[string]string, error) {
	all, err := a.root().List()
	if err != nil {
		return nil, err
	}
	needed := map[string]string{}
	for _, c := range all {
		status, err := c.Status()
		if err != nil {
			return nil, err
		}
		if status == container.Stopped && c.State.Image != "" {
			needed[c.State.Image] = "container " + c.Name + " is stopped, and this is its last image"
		}
	}
	return needed, nil
}

// confirmPrune asks whether images may be removed.
func (a *app) confirmPrune(r *pruneResult) (bool, error) {
	for _, i := range r.Images {
		fmt.Fprintf(a.stderr, "%s (%s)\n", i.Image, formatSize(i.Bytes))
	}
	fmt.Fprintf(a.stderr, "Remove %s? [y/N] ", counted(len(r.Images), "image"))
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

func (a *app) printPruned(r *pruneResult) error {
	would := ""
	if r.DryRun {
		would = "would be "
	}
	for _, i := range r.Images {
		fmt.Fprintf(a.stdout, "%s %sremoved\n", i.Image, would)
	}
	for _, i := range r.Kept {
		fmt.Fprintf(a.stdout, "%s stays: %s\n", i.Image, i.Why)
	}
	if r.Packs+r.Rewritten > 0 {
		fmt.Fprintf(a.stdout, "packs: %d %sremoved, %d %srewritten\n", r.Packs, would, r.Rewritten, would)
	}
	_, err := fmt.Fprintf(a.stdout, "%s %sfreed\n", formatSize(r.Freed), would)
	return err
}

// counted is a number of things: "1 image", "2 images".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
