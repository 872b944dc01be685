package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"crucible/experiments/lab/archive"
)

func newKernelListCommand(a *app) *cobra.Command {
	var refresh bool
	c := &cobra.Command{
		Use:   "list [flags]",
		Short: "List the kernels and CRIUs that the distribution's archive has",
		Long: `List kernels and CRIUs that can be named by their versions, from the suites that
this machine's apt reaches. What is in the cache needs no network any more. The
archive's index is read anew when it is older than a day, or with --refresh.

Exit status: 0, 125 the archive cannot be read.`,
		Example: "  crucible kernel list\n  crucible kernel list --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			store, err := a.archive()
			if err != nil {
				return err
			}
			store.Refresh = refresh
			entries, err := store.List(c.Context())
			store.Progress("")
			if err != nil {
				return err
			}
			return a.print(a.json, entries, func() error { return a.entryTable(entries) })
		},
	}
	c.Flags().BoolVar(&refresh, "refresh", false, "read the archive's index anew")
	a.jsonFlag(c)
	return c
}

func (a *app) entryTable(entries []archive.Entry) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tVERSION\tRELEASE\tSUITE\tSIZE\tCACHED")
	for _, e := range entries {
		cached := "no"
		if e.Cached {
			cached = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Kind, e.Version, dash(e.Release), e.Suite, formatSize(e.Size), cached)
	}
	return w.Flush()
}

func newKernelFetchCommand(a *app) *cobra.Command {
	var criu []string
	c := &cobra.Command{
		Use:   "fetch [flags] [debian:VERSION...]",
		Short: "Fetch kernels and CRIUs into the cache",
		Long: `Fetch kernels, and with --criu versions of CRIU, from the distribution's archive
into the cache, and print where they are. The other commands do it by themselves
for what they need.

Exit status: 0, 125 something could not be fetched.`,
		Example: "  crucible kernel fetch debian:6.1 debian:6.12\n  crucible kernel fetch --criu 4.3",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args)+len(criu) == 0 {
				return misuse("name a kernel as debian:VERSION, or --criu VERSION")
			}
			return a.fetch(c.Context(), args, criu)
		},
	}
	c.Flags().StringSliceVar(&criu, "criu", nil, "versions of CRIU, separated by commas")
	a.jsonFlag(c)
	return c
}

// fetched is something in the cache, in `crucible kernel fetch --json`.
type fetched struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

func (a *app) fetch(ctx context.Context, kernels, crius []string) error {
	store, err := a.archive()
	if err != nil {
		return err
	}
	rows := []fetched{}
	for _, name := range kernels {
		version, ok := strings.CutPrefix(name, "debian:")
		if !ok {
			return misuse("%q: what can be fetched is named debian:VERSION", name)
		}
		k, err := store.Kernel(ctx, version)
		if err != nil {
			store.Progress("")
			return err
		}
		rows = append(rows, fetched{k.Release, k.Image})
	}
	for _, version := range crius {
		found, err := store.CRIU(ctx, version)
		if err != nil {
			store.Progress("")
			return err
		}
		rows = append(rows, fetched{"CRIU " + found.Version, found.Path})
	}
	store.Progress("")
	return a.print(a.json, rows, func() error {
		for _, r := range rows {
			fmt.Fprintf(a.stdout, "%s  %s\n", r.Name, r.Path)
		}
		return nil
	})
}
