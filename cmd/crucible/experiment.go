package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"crucible/experiments/engine"
	"crucible/experiments/plan"
	"crucible/experiments/report"
)

func newExperimentCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "experiment",
		Short: "Ask a question with a file, and get a table, figures and a verdict",
		Long: `An experiment is a file: a question, a workload, what is done with it, what is
varied, how often, and what must hold. To run it gives a directory of results, from which
reports are made. What can be in a file is told by crucible experiment manual.`,
		Example:               "  crucible experiment run experiments/frozen.yaml\n  crucible experiment report frozen.results --html frozen.html",
		DisableFlagsInUseLine: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misuse("unknown command %q for %q", args[0], "crucible experiment")
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newExperimentCheckCommand(a), newExperimentRunCommand(a), newExperimentReportCommand(a), newExperimentCompareCommand(a),
		newExperimentBundleCommand(a), newExperimentVerifyCommand(a), newExperimentRerunCommand(a),
		newExperimentManualCommand(a), newExperimentSchemaCommand(a))
	return c
}

// experimentFlags are the flags that an experiment file may use: those of the
// commands that its steps are, but for the ones that the engine itself gives.
func experimentFlags() plan.Flags {
	a := &app{} // to define flags sets what they are bound to
	flags := plan.Flags{}
	for name, one := range map[string]struct {
		command *cobra.Command
		not     []string
	}{
		"run":        {newRunCommand(a), []string{"name", "detach", "json", "rm", "tty", "bundle"}},
		"checkpoint": {newCheckpointCommand(a), []string{"json", "dry-run", "work-dir"}},
		"restore":    {newRestoreCommand(a), []string{"json"}},
		"stop":       {newStopCommand(a), []string{"json"}},
	} {
		one.command.Flags().VisitAll(func(f *pflag.Flag) {
			if !slices.Contains(one.not, f.Name) {
				flags[name] = append(flags[name], f.Name)
			}
		})
	}
	return flags
}

// experimentFiles completes the names of experiment files.
func experimentFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

func newExperimentCheckCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "check [flags] FILE...",
		Short: "Check experiment files, and list their cells",
		Long: `Read experiment files and check all of them without running anything: each key,
each option of a step, each value in each cell.

Exit status: 0 success, 1 a file is wrong.`,
		Example:           "  crucible experiment check experiments/*.yaml",
		Args:              minArgs(1, "a file"),
		ValidArgsFunction: experimentFiles,
		RunE:              func(_ *cobra.Command, args []string) error { return a.experimentCheck(args) },
	}
	a.jsonFlag(c)
	return c
}

// checked is an experiment in `crucible experiment check`.
type checked struct {
	File     string   `json:"file"`
	Question string   `json:"question"`
	Cells    []string `json:"cells"`
	Runs     int      `json:"runs"` // in all, those that warm up counted
}

func (a *app) experimentCheck(files []string) error {
	rows := []checked{}
	var errs []error
	flags := experimentFlags()
	for _, file := range files {
		p, err := plan.Read(file, flags)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r := checked{File: file, Question: strings.TrimSpace(p.File.Question), Runs: len(p.Cells) * (p.File.Repetitions.Runs + p.File.Repetitions.WarmUp)}
		for _, c := range p.Cells {
			r.Cells = append(r.Cells, c.String())
		}
		rows = append(rows, r)
	}
	return errors.Join(a.print(a.json, rows, func() error {
		for _, r := range rows {
			fmt.Fprintf(a.stdout, "%s: %s\n%d cells, %d runs:\n", r.File, r.Question, len(r.Cells), r.Runs)
			for _, c := range r.Cells {
				fmt.Fprintln(a.stdout, " ", c)
			}
		}
		return nil
	}), errors.Join(errs...))
}

func newExperimentRunCommand(a *app) *cobra.Command {
	var o engine.Options
	c := &cobra.Command{
		Use:   "run [flags] FILE",
		Short: "Run an experiment",
		Long: `Run each cell of an experiment so often as its file says, in an order that its seed
decides, and write down every run: see crucible experiment report. A run that
fails is a result like any other; what it leaves behind is removed and counted.

Results go to FILE without its ending, and ".results". An experiment that was
interrupted goes on with --resume.

Exit status: 0 all that must hold holds; 1 something does not, or the file is
wrong; 130 interrupted: what is through is kept.`,
		Example: `  crucible experiment run experiments/frozen.yaml
  crucible experiment run --only memory=64MiB -n 3 experiments/frozen.yaml
  crucible experiment run --resume experiments/frozen.yaml`,
		Args:              exactArgs(1, "an experiment file"),
		ValidArgsFunction: experimentFiles,
		RunE:              func(c *cobra.Command, args []string) error { return a.experimentRun(c.Context(), args[0], o) },
	}
	c.Flags().StringVarP(&o.Dir, "output", "o", "", "directory for the results (default: FILE without .yaml, and .results)")
	c.Flags().StringArrayVar(&o.Only, "only", nil, "run this cell only, by its name; again for more")
	c.Flags().IntVarP(&o.Runs, "runs", "n", 0, "runs of each cell (default: as the file says)")
	c.Flags().BoolVar(&o.Resume, "resume", false, "go on with an experiment that was interrupted")
	a.jsonFlag(c)
	return c
}

func (a *app) experimentRun(ctx context.Context, file string, o engine.Options) error {
	if o.Runs < 0 {
		return misuse("--runs: must be 1 or more")
	}
	var err error
	if o.Plan, err = plan.Read(file, experimentFlags()); err != nil {
		return err
	}
	if err := needRoot("run an experiment"); err != nil {
		return err
	}
	if o.Dir == "" {
		o.Dir = strings.TrimSuffix(file, filepath.Ext(file)) + ".results"
	}
	if err := a.prepare(&o); err != nil {
		return err
	}
	results, err := a.runEngine(ctx, o)
	if results == nil {
		return err
	}
	r := report.New(results)
	if printErr := a.print(a.json, r, func() error {
		if err := r.WriteText(a.stdout); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "\nresults: %s\n", results.Dir)
		return err
	}); printErr != nil || err != nil {
		return errors.Join(err, printErr)
	}
	return verdictOf(r.ExitCode())
}

// prepare says what an experiment is run with.
func (a *app) prepare(o *engine.Options) error {
	found, err := a.criu()
	if err != nil {
		return err
	}
	o.CRIU, o.Version, o.Enough, o.Flags = found.Path, version, report.Enough, experimentFlags()
	o.Crucible, err = os.Executable()
	return err
}

// runEngine runs an experiment and shows how far it is.
func (a *app) runEngine(ctx context.Context, o engine.Options) (*engine.Results, error) {
	progress := a.progress()
	defer progress("")
	o.Event = func(e engine.Event) {
		text := fmt.Sprintf("run %d of %d", min(e.Done+1, e.All), e.All)
		if e.Left > 0 {
			text += fmt.Sprintf(", some %v left", e.Left.Round(time.Second))
		}
		progress(text + ": " + shorten(strings.TrimSpace(e.Cell+" "+e.Step), 40))
	}
	return engine.Run(ctx, o)
}

func verdictOf(code int) error {
	if code != report.Good {
		return &exitError{code}
	}
	return nil
}

func newExperimentReportCommand(a *app) *cobra.Command {
	var html, markdown, csv, bench, figures string
	c := &cobra.Command{
		Use:   "report [flags] RESULTS",
		Short: "Show an experiment's results, or write them as a page or for other tools",
		Long: `Show what an experiment came to: the answer, a table, what must hold, what failed
and why, and what may be wrong with it. A page holds everything, needs no network,
and prints well.

Exit status: 0 all that must hold holds, 1 something does not, or there are no
results.`,
		Example: `  crucible experiment report frozen.results
  crucible experiment report --html frozen.html --figures figures frozen.results
  crucible experiment report --bench new.txt frozen.results && benchstat old.txt new.txt`,
		Args: exactArgs(1, "a directory of results"),
		RunE: func(_ *cobra.Command, args []string) error {
			results, err := engine.Load(args[0], experimentFlags())
			if err != nil {
				return err
			}
			r := report.New(results)
			if err := a.print(a.json, r, func() error { return r.WriteText(a.stdout) }); err != nil {
				return err
			}
			if err := errors.Join(a.writeOut(html, r.WriteHTML), a.writeOut(markdown, r.WriteMarkdown), a.writeOut(csv, r.WriteCSV), a.writeOut(bench, r.WriteBench)); err != nil {
				return err
			}
			if figures != "" {
				if err := r.WriteFigures(figures); err != nil {
					return err
				}
			}
			return verdictOf(r.ExitCode())
		},
	}
	c.Flags().StringVar(&html, "html", "", "write a page to this file")
	c.Flags().StringVar(&markdown, "markdown", "", "write Markdown to this file")
	c.Flags().StringVar(&csv, "csv", "", "write all samples to this file, comma-separated")
	c.Flags().StringVar(&bench, "bench", "", "write all samples to this file, for benchstat")
	c.Flags().StringVar(&figures, "figures", "", "write the figures to this directory, as SVG")
	a.jsonFlag(c)
	return c
}

func newExperimentCompareCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "compare [flags] OLD NEW",
		Short: "Compare two results of one experiment, cell by cell",
		Long: `Compare the results of an experiment with earlier ones: for each cell the medians,
what they differ by, whether that can be chance (Mann-Whitney U test, 5 %), and
which bounds held before and do not any more.

Exit status: 0 no bound that held before is broken now, 1 one is.`,
		Example: "  crucible experiment compare before.results after.results",
		Args:    exactArgs(2, "two directories of results"),
		RunE: func(_ *cobra.Command, args []string) error {
			flags := experimentFlags()
			before, err := engine.Load(args[0], flags)
			if err != nil {
				return err
			}
			after, err := engine.Load(args[1], flags)
			if err != nil {
				return err
			}
			d := report.Compare(report.New(before), report.New(after))
			if err := a.print(a.json, d, func() error { return a.comparisonTable(d) }); err != nil {
				return err
			}
			return verdictOf(d.ExitCode())
		},
	}
	a.jsonFlag(c)
	return c
}

func (a *app) comparisonTable(d *report.Comparison) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MEASURE\tCELL\tBEFORE\tAFTER\tCHANGE\tP\t")
	for _, c := range d.Changes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.3f\t%s\n", c.Measure, c.Cell, c.BeforeText(), c.AfterText(), c.Percent(), c.P, c.Word())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, v := range d.Verdicts {
		fmt.Fprintf(a.stdout, "%s: %s: %s before, %s now\n", v.Cell, v.Bound, v.Before, v.After)
	}
	for _, m := range d.Machines {
		fmt.Fprintf(a.stdout, "note: %s: %s before, %s now\n", m.What, m.Before, m.After)
	}
	return nil
}

func newExperimentManualCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "manual",
		Short: "Print what can be in an experiment file: keys, steps, measures",
		Long: `Print what can be in an experiment file: an example, all keys, all steps, and all
measures with their units and where the numbers come from.

Exit status: 0 success.`,
		Example: "  crucible experiment manual | less",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			return a.print(a.json, plan.Measures(), func() error { return plan.WriteManual(a.stdout) })
		},
	}
	a.jsonFlagFor(c, "print the measures, as JSON")
	return c
}

func newExperimentSchemaCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of experiment files, for editors",
		Long: `Print the JSON schema of experiment files. Editors that know YAML complete and
check with it: a first line "# yaml-language-server: $schema=PATH" names it.

Exit status: 0 success.`,
		Example: "  crucible experiment schema > experiment.schema.json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			schema, err := plan.Schema()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(schema)
			return err
		},
	}
	a.jsonFlagFor(c, "print JSON, as always")
	return c
}

// writeOut writes to a file, or "-", if one is asked for.
func (a *app) writeOut(path string, write func(io.Writer) error) error {
	switch path {
	case "":
		return nil
	case "-":
		return write(a.stdout)
	}
	return writeFile(path, write)
}
