package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/proto/imagepb"
)

func newImageCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "List, show, verify, edit, carry and remove images",
		Long: `An image is a directory that a checkpoint wrote and nothing changes. NAME@N is the
Nth image of container NAME; NAME alone is the newest.`,
		Example:               "  crucible image list\n  crucible image show web@1",
		DisableFlagsInUseLine: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misuse("unknown command %q for %q", args[0], "crucible image")
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []func(*app) *cobra.Command{
		newImageListCommand,
		newImageShowCommand,
		newImagePsCommand,
		newImageTreeCommand,
		newImageFdsCommand,
		newImageSocketsCommand,
		newImageMountsCommand,
		newImageNamespacesCommand,
		newImageEnvCommand,
		newImageStatsCommand,
		newImageLogCommand,
		newImageTimelineCommand,
		newImageDecodeCommand,
		newImageEncodeCommand,
		newImageMapsCommand,
		newImageMemoryCommand,
		newImageCoreCommand,
		newImageDiffCommand,
		newImageVerifyCommand,
		newImageEditCommand,
		newImageExportCommand,
		newImageImportCommand,
		newImageScanCommand,
		newImageRemoveCommand,
		newImagePackCommand,
		newImagePruneCommand,
		newImageUsageCommand,
	} {
		c.AddCommand(sub(a))
	}
	return c
}

// imageRow is an image in `crucible image list`.
type imageRow struct {
	Image       string    `json:"image"`
	Created     time.Time `json:"created"`
	Size        int64     `json:"size"`     // bytes, without its parent's
	Frozen      int64     `json:"frozenNs"` // nanoseconds
	LeftRunning bool      `json:"leftRunning"`
	PreDump     bool      `json:"preDump,omitempty"` // memory only: it cannot be restored
	Processes   uint32    `json:"processes"`
	Parent      string    `json:"parent,omitempty"`
	Kernel      string    `json:"kernel,omitempty"`
	CRIU        string    `json:"criu,omitempty"`
	Machine     string    `json:"machine,omitempty"`
	Command     []string  `json:"command,omitempty"`
	Directory   string    `json:"directory"`
}

func newImageListCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "list [flags] [NAME]",
		Aliases: []string{"ls"},
		Short:   "List the images of a container, or all",
		Long: `List images, oldest first. One that builds on another has the size of what is in
it alone.

Exit status: 0 success, 6 an image cannot be read; the others are listed.`,
		Example:           "  crucible image list\n  crucible image list --json web",
		Args:              maxArgs(1, "the name of a container, or none"),
		ValidArgsFunction: a.imageOwners,
		RunE: func(c *cobra.Command, args []string) error {
			return runImageList(a, strings.Join(args, ""))
		},
	}
	a.jsonFlag(c)
	return c
}

func runImageList(a *app, name string) error {
	all, err := a.images().List(name)
	rows := []imageRow{}
	for _, i := range all {
		rows = append(rows, rowOf(i))
	}
	return errors.Join(a.print(a.json, rows, func() error { return a.imageTable(rows) }), err)
}

func rowOf(i *images.Image) imageRow {
	m := i.Manifest
	r := imageRow{
		Image: i.Ref(), Created: i.Created(), Size: i.Size(), Frozen: m.FrozenNs, LeftRunning: m.LeftRunning, PreDump: m.GetTraits().GetPreDump(),
		Processes: m.GetTraits().GetProcesses(), Parent: i.ParentRef(), Kernel: m.GetWriter().GetKernelRelease(),
		CRIU: m.GetWriter().GetCriu(), Machine: m.GetWriter().GetMachine(), Directory: i.Dir(),
	}
	var p imagepb.Processes
	// An image without this file can be listed and restored all the same.
	if err := i.Get(images.Processes, &p); err == nil && len(p.Processes) > 0 {
		r.Command = p.Processes[0].Args
	}
	return r
}

func (a *app) imageTable(rows []imageRow) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tAGE\tSIZE\tBUILDS ON\tFROZEN\tPROCESSES\tKERNEL\tCOMMAND")
	for _, r := range rows {
		command := shorten(printable(strings.Join(r.Command, " ")), 50)
		if r.PreDump {
			command = "(pre-dump: memory only)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.Image, age(r.Created), formatSize(r.Size), dash(r.Parent), inMS(r.Frozen),
			r.Processes, dash(r.Kernel), command)
	}
	return w.Flush()
}

func inMS(ns int64) string { return fmt.Sprintf("%.1f ms", float64(ns)/1e6) }

// printable keeps what a container called itself from moving the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// verdict is the result of `crucible image verify` for one image.
type verdict struct {
	Image  string   `json:"image"`
	Intact bool     `json:"intact"`
	Files  int      `json:"files"`
	Size   int64    `json:"size"` // bytes
	Took   int64    `json:"tookNs"`
	Faults []string `json:"faults,omitempty"`
	// What a newer crucible has written that this one does not know.
	Unknown []images.Unknown `json:"unknown,omitempty"`
}

func newImageVerifyCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "verify [flags] NAME[@N]...",
		Short: "Compare every file of an image with its digest",
		Long: `Read every file of an image and compare it with the digest that the checkpoint
wrote, and so the memory in the images that it builds on. Files that are missing,
changed or added are named, and so is what a newer crucible has written into it that
this one does not know.

Exit status: 0 all images are intact, 3 no such image, 6 an image is damaged.`,
		Example:           "  crucible image verify web@1 web@2",
		Args:              minArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			return runImageVerify(c.Context(), a, args)
		},
	}
	a.jsonFlag(c)
	return c
}

func runImageVerify(ctx context.Context, a *app, refs []string) error {
	verdicts := []verdict{}
	var errs []error
	for _, ref := range refs {
		v, err := verify(ctx, a.images(), ref)
		if v != nil {
			verdicts = append(verdicts, *v)
		}
		errs = append(errs, err)
	}
	return errors.Join(a.print(a.json, verdicts, func() error {
		for _, v := range verdicts {
			for _, fault := range v.Faults {
				fmt.Fprintf(a.stdout, "%s: %s\n", v.Image, fault)
			}
			if v.Intact {
				fmt.Fprintf(a.stdout, "%s: intact (%d files, %s, %s)\n", v.Image, v.Files, formatSize(v.Size), inMS(v.Took))
			}
			if len(v.Unknown) > 0 {
				fmt.Fprintf(a.stdout, "%s: unknown to this crucible: %s\n", v.Image, unknownWords(v.Unknown))
			}
		}
		return nil
	}), errors.Join(errs...))
}

// verify verifies one image. That it is damaged is both a verdict and an error.
func verify(ctx context.Context, store images.Store, ref string) (*verdict, error) {
	i, err := store.Open(ref)
	if err != nil {
		return nil, err
	}
	hold, err := i.Hold()
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	start := time.Now()
	err = i.Verify(ctx, images.VerifyOptions{})
	if err != nil && !errors.Is(err, images.Damaged) {
		return nil, err
	}
	v := &verdict{Image: i.Ref(), Intact: err == nil, Files: len(i.Manifest.Files), Size: i.Size(), Took: int64(time.Since(start))}
	if err == nil {
		v.Unknown, err = i.Unknown()
		return v, err
	}
	where := ""
	for _, line := range strings.Split(err.Error(), "\n") {
		own, is := strings.CutPrefix(line, "image "+i.Ref()+": ")
		if v.Faults = append(v.Faults, own); !is {
			where = ", in what it builds on,"
		}
	}
	return v, &images.Error{Kind: images.Damaged, Ref: i.Ref(), Text: fmt.Sprintf("is damaged: %d of its files%s differ", len(v.Faults), where),
		Advice: "take another image, or a copy of this one"}
}

func newImageRemoveCommand(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:     "rm [flags] NAME@N... | --all NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove images",
		Long: `Remove images. One that is being restored, or that another image builds on, stays.

Exit status: 0 success, 3 no such image, 6 an image is in use.`,
		Example:           "  crucible image rm web@1 web@2\n  crucible image rm --all web",
		Args:              minArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			return runImageRemove(c, a, args, all)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "remove all images of the containers NAME")
	a.jsonFlag(c)
	return c
}

// removal is an image in the answer of `crucible image rm --json`.
type removal struct {
	Image  string `json:"image"`
	Status string `json:"status"` // "removed"
}

func runImageRemove(c *cobra.Command, a *app, args []string, all bool) error {
	store := a.images()
	refs, missing, err := toRemove(store, args, all)
	if err != nil {
		return err
	}
	errs := []error{missing} // which does not keep the others
	removed := []removal{}
	for _, ref := range refs {
		err := store.Remove(c.Context(), ref)
		if err == nil {
			removed = append(removed, removal{ref, "removed"})
		}
		errs = append(errs, err)
	}
	return errors.Join(a.print(a.json, removed, func() error {
		for _, r := range removed {
			fmt.Fprintln(a.stdout, r.Image)
		}
		return nil
	}), errors.Join(errs...))
}

// toRemove are the images that arguments of `crucible image rm` name; missing
// names the containers that have none.
func toRemove(store images.Store, args []string, all bool) (refs []string, missing, err error) {
	for _, arg := range args {
		r, err := images.ParseRef(arg)
		switch {
		case err != nil:
			return nil, nil, &usageError{err}
		case all && r.Number != 0:
			return nil, nil, misuse("remove image %s: --all takes the name of a container, without @N", arg)
		case !all && r.Number == 0:
			return nil, nil, misuse("remove image %s: say which one, NAME@N, or --all NAME", arg)
		case !all:
			refs = append(refs, arg)
			continue
		}
		if _, err := store.Open(arg); errors.Is(err, images.NotFound) {
			missing = errors.Join(missing, err)
			continue
		}
		numbers, err := store.Numbers(r.Name)
		if err != nil {
			return nil, nil, err
		}
		// The newest first: an image builds on older ones.
		for n := len(numbers) - 1; n >= 0; n-- {
			refs = append(refs, images.Ref{Name: r.Name, Number: numbers[n]}.String())
		}
	}
	return refs, missing, nil
}
