package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"crucible/images/inspect/secrets"
)

func newImageScanCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "scan [flags] NAME[@N]",
		Short: "Look for the secrets that an image gives away",
		Long: `Look for secrets in an image before it goes to somebody: private keys and tokens in
the memory of its processes and in the files that the container wrote, by their
form, and variables of the environment, by their name. Nothing found does not mean
that there is nothing: a password in memory has no form. Each is shown once, at its
first place, and only how it begins.

Exit status: 0 nothing was found, 1 something was, or failure, 3 no such image, 6
the image cannot be read.`,
		Example:           "  crucible image scan web@3\n  crucible image scan --json web",
		Args:              exactArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			return runImageScan(c.Context(), a, args[0])
		},
	}
	a.jsonFlag(c)
	return c
}

func runImageScan(ctx context.Context, a *app, ref string) error {
	i, err := a.images().Open(ref)
	if err != nil {
		return err
	}
	show := a.progress()
	show("scan " + i.Ref())
	all, err := secrets.Scan(ctx, i)
	show("")
	if err != nil {
		return err
	}
	if all == nil {
		all = []*secrets.Finding{}
	}
	err = a.print(a.json, all, func() error {
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		if len(all) > 0 {
			fmt.Fprintln(w, "KIND\tWHERE\tPLACES\tBEGINS")
		}
		for _, f := range all {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", f.Kind, printable(whereSecret(f)), f.Places, printable(f.Excerpt))
		}
		return w.Flush()
	})
	if err == nil && len(all) > 0 {
		err = &exitError{1}
	}
	return err
}

func whereSecret(f *secrets.Finding) string {
	switch {
	case f.File != "":
		return f.File
	case f.Name != "":
		return fmt.Sprintf("process %d, %s", f.Pid, f.Name)
	case f.Shared != 0:
		return fmt.Sprintf("shared memory %d, %s", f.Shared, f.Address)
	}
	return fmt.Sprintf("process %d, %s", f.Pid, f.Address)
}
