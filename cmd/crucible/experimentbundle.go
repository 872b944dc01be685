package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"crucible/experiments/engine"
	"crucible/experiments/plan"
	"crucible/experiments/report"
)

func newExperimentBundleCommand(a *app) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "bundle [flags] RESULTS",
		Short: "Put an experiment's results into one file, with all that is needed to make them again",
		Long: `Write one file with the experiment, all its runs, the logs of those that failed,
what it was run on, and this crucible. CRIU and the host's programs are not in it;
their versions are.

Exit status: 0 success, 1 failure.`,
		Example:           "  crucible experiment bundle -o frozen.bundle frozen.results",
		Args:              exactArgs(1, "a directory of results"),
		ValidArgsFunction: directories,
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := engine.Load(args[0], experimentFlags()); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			if out == "" {
				out = strings.TrimSuffix(filepath.Clean(args[0]), ".results") + ".bundle"
			}
			if err := a.writeOut(out, func(w io.Writer) error { return engine.Pack(w, args[0], self) }); err != nil || out == "-" {
				return err
			}
			return a.print(a.json, map[string]string{"bundle": out}, func() error {
				_, err := fmt.Fprintln(a.stdout, out)
				return err
			})
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "the file, or - for standard output (default: RESULTS with .bundle in place of .results)")
	a.jsonFlag(c)
	return c
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// unbundle unpacks a bundle to a directory that is to be removed.
func unbundle(bundle string) (dir string, results *engine.Results, err error) {
	if dir, err = os.MkdirTemp("/var/tmp", "crucible-bundle-"); err != nil {
		return "", nil, err
	}
	if err = engine.Unpack(bundle, dir); err == nil {
		results, err = engine.Load(filepath.Join(dir, engine.BundledResults), experimentFlags())
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, results, nil
}

func newExperimentVerifyCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "verify [flags] BUNDLE",
		Short: "Check that a bundle is whole, and show its results",
		Long: `Check every file of a bundle against its digest, and show the results in it: what
crucible experiment report shows.

Exit status: 0 it is whole, and all that must hold holds; 1 otherwise.`,
		Example: "  crucible experiment verify frozen.bundle",
		Args:    exactArgs(1, "a bundle"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, results, err := unbundle(args[0])
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			r := report.New(results)
			if err := a.print(a.json, r, func() error { return r.WriteText(a.stdout) }); err != nil {
				return err
			}
			return verdictOf(r.ExitCode())
		},
	}
	a.jsonFlag(c)
	return c
}

func newExperimentRerunCommand(a *app) *cobra.Command {
	var out string
	var bundled bool
	c := &cobra.Command{
		Use:   "rerun [flags] BUNDLE",
		Short: "Run the experiment of a bundle again, here, and compare",
		Long: `Run the experiment of a bundle on this machine, and say which verdicts held, which
changed, and what differs between the two machines.

Exit status: 0 each bound that held there holds here, 1 one does not.`,
		Example: "  crucible experiment rerun frozen.bundle\n  crucible experiment rerun --bundled -o again.results frozen.bundle",
		Args:    exactArgs(1, "a bundle"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.experimentRerun(c.Context(), args[0], out, bundled)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "directory for the new results (default: BUNDLE without its ending, and .rerun.results)")
	c.Flags().BoolVar(&bundled, "bundled", false, "run the crucible that is in the bundle, not this one")
	a.jsonFlag(c)
	return c
}

func (a *app) experimentRerun(ctx context.Context, bundle, out string, bundled bool) error {
	if err := needRoot("run an experiment"); err != nil {
		return err
	}
	dir, before, err := unbundle(bundle)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o := engine.Options{Dir: out, Plan: &plan.Plan{}}
	*o.Plan = *before.Plan
	o.Plan.Path = bundle
	if o.Dir == "" {
		o.Dir = strings.TrimSuffix(bundle, filepath.Ext(bundle)) + ".rerun.results"
	}
	if err := a.prepare(&o); err != nil {
		return err
	}
	if bundled {
		o.Crucible = filepath.Join(dir, engine.BundledProgram)
		if _, err := os.Stat(o.Crucible); err != nil {
			return &engine.BundleError{Path: bundle, Why: "there is no crucible in it"}
		}
	}
	after, err := a.runEngine(ctx, o)
	if err != nil {
		return err
	}
	d := report.Compare(report.New(before), report.New(after))
	if err := a.print(a.json, d, func() error { return a.comparisonTable(d) }); err != nil {
		return err
	}
	return verdictOf(d.ExitCode())
}
