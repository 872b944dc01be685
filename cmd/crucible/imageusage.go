package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"crucible/images"
)

func newImageUsageCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "usage [flags] [NAME]",
		Short: "Show what images take on disk",
		Long: `Show what each image takes on disk, each container's images together, and the
whole store:

  SIZE    of its files, as the checkpoint wrote them
  FILES   what is on disk for this image alone: all but packed memory
  UNIQUE  its packed memory that no other image has, compressed
  SHARED  its packed memory that other images have, too, compressed

To remove an image frees FILES, and UNIQUE with the next crucible image prune. Of a
container UNIQUE is what is in its images alone.

Exit status: 0 success, 3 no such image, 6 something cannot be read; the rest is
shown.`,
		Example:           "  crucible image usage\n  crucible image usage --json web",
		Args:              maxArgs(1, "the name of a container, or none"),
		ValidArgsFunction: a.imageOwners,
		RunE: func(_ *cobra.Command, args []string) error {
			return runImageUsage(a, strings.Join(args, ""))
		},
	}
	a.jsonFlag(c)
	return c
}

// usageRow is an image, or all of a container, in `crucible image usage`. All
// sizes are in bytes.
type usageRow struct {
	Image     string `json:"image,omitempty"`
	Container string `json:"container"`
	Images    int    `json:"images,omitempty"`
	Packed    bool   `json:"packed"`
	Size      int64  `json:"size"`
	Files     int64  `json:"files"`
	Unique    int64  `json:"unique"`
	Shared    int64  `json:"shared"`
}

// storeUsage is the answer of `crucible image usage`.
type storeUsage struct {
	Images     []usageRow `json:"images"`
	Containers []usageRow `json:"containers"`
	Packs      int        `json:"packs"`
	PackBytes  int64      `json:"packBytes"`
	Unused     int64      `json:"unused"` // bytes of the packs that a prune can free
	Drafts     int64      `json:"drafts"` // bytes of what is being written
	Total      int64      `json:"total"`  // bytes of the whole store
}

func runImageUsage(a *app, name string) error {
	if name != "" {
		if _, err := a.images().Open(name); errors.Is(err, images.NotFound) {
			return err
		}
	}
	u, err := a.images().Usage()
	if u == nil {
		return err
	}
	out := storeUsage{Images: []usageRow{}, Containers: []usageRow{}, Packs: u.Packs, PackBytes: u.PackBytes, Unused: u.Unused, Drafts: u.Drafts, Total: u.Total()}
	for _, i := range u.Images {
		if name == "" || i.Name == name {
			out.Images = append(out.Images, usageRow{Image: i.Ref.String(), Container: i.Name, Packed: i.Packed, Size: i.Size, Files: i.Files, Unique: i.Unique, Shared: i.Shared})
		}
	}
	for _, c := range u.Containers {
		if name == "" || c.Name == name {
			out.Containers = append(out.Containers, usageRow{Container: c.Name, Images: c.Images, Packed: c.Packed, Size: c.Size, Files: c.Files, Unique: c.Unique, Shared: c.Shared})
		}
	}
	return errors.Join(a.print(a.json, out, func() error { return a.usageTable(out) }), err)
}

func (a *app) usageTable(u storeUsage) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	row := func(name string, r usageRow) {
		unique, shared := "-", "-"
		if r.Packed {
			unique, shared = formatSize(r.Unique), formatSize(r.Shared)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, formatSize(r.Size), formatSize(r.Files), unique, shared)
	}
	fmt.Fprintln(w, "IMAGE\tSIZE\tFILES\tUNIQUE\tSHARED")
	for _, r := range u.Images {
		row(r.Image, r)
	}
	if slices.ContainsFunc(u.Containers, func(r usageRow) bool { return r.Images > 1 }) {
		fmt.Fprintln(w, "\nCONTAINER\tSIZE\tFILES\tUNIQUE\tSHARED")
		for _, r := range u.Containers {
			row(fmt.Sprintf("%s (%d)", r.Container, r.Images), r)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if u.Packs > 0 {
		fmt.Fprintf(a.stdout, "\n%s: %s, of which %s are unused\n", counted(u.Packs, "pack"), formatSize(u.PackBytes), formatSize(u.Unused))
	}
	_, err := fmt.Fprintf(a.stdout, "store: %s\n", formatSize(u.Total))
	return err
}
