package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"crucible/experiments/conformance"
)

type matrixFlags struct {
	kernels, crius, cgroups []string
	html, svg               string
	experiment, output      string
	runs                    int
	machine                 machineFlags
	cases                   caseFlags
}

func newKernelMatrixCommand(a *app) *cobra.Command {
	var f matrixFlags
	c := &cobra.Command{
		Use:   "matrix [flags] --kernels KERNEL,...",
		Short: "Ask several kernels, with several CRIUs, and draw a heat map",
		Long: `Run the conformance cases on every combination of kernels, CRIUs and cgroup
layouts, as many machines at a time as processors and memory allow, and show one
map: pass, fail, skip, and what stands behind each of the last two.

With --experiment, an experiment is run on each combination in place of the cases:
kernel, criu and cgroup are then factors of it, and crucible experiment report
shows what came of it. An emulated machine is slow: its times compare with each
other, and not with those of a real one.

Exit status: 0 nothing failed; 1 a case failed on some combination; 125 one could
not be tested, and none failed.`,
		Example: `  crucible kernel matrix --kernels debian:6.1,debian:6.12,arch/x86/boot/bzImage
  crucible kernel matrix --kernels debian:6.12 --criu 4.1.1,4.3 --cgroups v2,hybrid --html map.html`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error { return a.kernelMatrix(c.Context(), &f) },
	}
	c.Flags().StringSliceVar(&f.kernels, "kernels", nil, "kernels, separated by commas: bzImage, directory of a build, debian:VERSION")
	c.Flags().StringSliceVar(&f.crius, "criu", nil, "CRIUs, separated by commas: a version in the archive, or a path (default: this host's)")
	c.Flags().StringSliceVar(&f.cgroups, "cgroups", []string{"v2"}, "cgroup layouts, separated by commas: v1, hybrid, v2")
	c.Flags().StringVar(&f.experiment, "experiment", "", "run this experiment on each, in place of the conformance cases")
	c.Flags().StringVarP(&f.output, "output", "o", "", "with --experiment: directory for its results (default: FILE without .yaml, and .results)")
	c.Flags().IntVarP(&f.runs, "runs", "n", 0, "with --experiment: runs of each cell (default: as the file says)")
	c.Flags().StringVar(&f.html, "html", "", "write the map and all reasons as a page to this file")
	c.Flags().StringVar(&f.svg, "svg", "", "write the map as a drawing to this file")
	f.machine.add(c)
	f.cases.add(c)
	a.jsonFlag(c)
	return c
}

func (a *app) kernelMatrix(ctx context.Context, f *matrixFlags) error {
	if len(f.kernels) == 0 {
		return misuse("--kernels: name at least one")
	}
	if len(f.crius) == 0 {
		f.crius = []string{a.criuPath}
	}
	o, err := f.cases.options(ctx, &f.machine)
	if err != nil {
		return err
	}
	for _, path := range []string{f.html, f.svg} { // or the answers would be lost
		if path == "" {
			continue
		}
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return misuse("write %s: %w", path, err)
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return misuse("write %s: it is a directory", path)
		}
	}
	targets, err := a.targets(ctx, f.kernels, f.crius, f.cgroups)
	if err != nil {
		return err
	}
	if f.experiment != "" {
		return a.kernelExperiment(ctx, f, o, targets)
	}
	done := a.showProgress(&o, len(targets))
	report, err := conformance.Run(ctx, targets, o)
	done()
	if err != nil {
		return err
	}
	if err := a.print(a.json, report, func() error { return report.WriteMap(a.stdout, a.colours()) }); err != nil {
		return err
	}
	a.noteModules(targets, report)
	if err := writeMaps(report, f); err != nil {
		return err
	}
	if code := report.ExitCode(); code != 0 {
		return &exitError{code}
	}
	return nil
}

// showProgress says on a terminal how far many targets are, and elsewhere a
// line for each that is through.
func (a *app) showProgress(o *conformance.Options, targets int) (done func()) {
	progress := a.progress()
	outcomes, through, failed := 0, 0, 0
	o.Event = func(e conformance.Event) {
		switch {
		case e.Outcome != nil:
			outcomes++
			if e.Outcome.Verdict == "fail" {
				failed++
			}
		case e.Done:
			through++
		}
		progress(fmt.Sprintf("%d of %d targets, %d of %d cases, %d failed", through, targets, outcomes, targets*len(o.Cases), failed))
	}
	progress("booting")
	return func() { progress("") }
}

func writeMaps(r *conformance.Report, f *matrixFlags) error {
	for _, one := range []struct {
		path  string
		write func(io.Writer) error
	}{{f.html, r.WriteHTML}, {f.svg, r.WriteSVG}} {
		if one.path == "" {
			continue
		}
		if err := writeFile(one.path, one.write); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file that is there as a whole or not at all.
func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	err = write(file)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// freeMemory is what can be had without swapping, in bytes: free pages and those
// of files. sysinfo(2) counts only the former, so half of the rest is added.
func freeMemory() uint64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	unit := uint64(s.Unit)
	free := (uint64(s.Freeram) + uint64(s.Bufferram)) * unit
	return free + (uint64(s.Totalram)*unit-free)/2
}

func newKernelCompareCommand(a *app) *cobra.Command {
	var (
		m      machineFlags
		f      caseFlags
		n      countFlag
		cgroup string
		most   float64
	)
	c := &cobra.Command{
		Use:   "compare [flags] BEFORE AFTER",
		Short: "Say which cases changed between two kernels",
		Long: `Run the conformance cases on two kernels, and list those that do not come to the
same on both.

` + countHelp + ` The functions that changed by
more than one round differs from another tell most: what they add up to, on two
kernels that are the same, is below 0.1 %.

Exit status: 0 no case that passed on BEFORE fails on AFTER, and with --threshold
no cost grew by more than that; 1 one does, or did; 125 one of them could not be
tested.`,
		Example: "  crucible kernel compare debian:6.1 debian:6.12\n  crucible kernel compare debian:6.12 arch/x86/boot/bzImage\n" +
			"  crucible kernel compare --count --threshold 1 --case threads,pipe good/bzImage arch/x86/boot/bzImage",
		Args: exactArgs(2, "two kernels"),
		RunE: func(c *cobra.Command, args []string) error {
			if most < 0 || most > 0 && !n.count {
				return misuse("--threshold: must be above 0, and needs --count")
			}
			return a.kernelCompare(c.Context(), &m, &f, &n, cgroup, most, args)
		},
	}
	c.Flags().StringVar(&cgroup, "cgroup", "v2", "cgroup layout: v1, hybrid or v2")
	m.add(c)
	f.add(c)
	n.add(c)
	c.Flags().Float64Var(&most, "threshold", 0, "with --count: exit status 1 if a cost grew by more than this, in percent (0: whatever it is)")
	a.jsonFlag(c)
	return c
}

// comparison is what `crucible kernel compare --json` prints.
type comparison struct {
	Changes     []conformance.Change     `json:"changes"`
	Differences []conformance.Difference `json:"differences,omitempty"` // with --count
	Report      *conformance.Report      `json:"report"`
}

func (a *app) kernelCompare(ctx context.Context, m *machineFlags, f *caseFlags, n *countFlag, cgroup string, most float64, kernels []string) error {
	o, err := f.options(ctx, m)
	if err != nil {
		return err
	}
	if err := n.options(ctx, a, &o); err != nil {
		return err
	}
	targets, err := a.targets(ctx, kernels, []string{a.criuPath}, []string{cgroup})
	if err != nil {
		return err
	}
	done := a.showProgress(&o, 2)
	report, err := conformance.Run(ctx, targets, o)
	done()
	if err != nil {
		return err
	}
	before, after := &report.Answers[0], &report.Answers[1]
	a.noteModules(targets, report)
	changes := conformance.Compare(report.Cases, before, after)
	if changes == nil {
		changes = []conformance.Change{} // for JSON
	}
	differences := conformance.CompareCounts(report.Cases, before, after)
	err = a.print(a.json, comparison{changes, differences, report}, func() error {
		fmt.Fprintf(a.stdout, "before: %s\nafter:  %s\n", before.Summary(), after.Summary())
		for _, c := range changes {
			fmt.Fprintln(a.stdout, c)
		}
		if len(changes) == 0 {
			fmt.Fprintln(a.stdout, "no case changed")
		}
		for _, d := range differences {
			fmt.Fprintln(a.stdout, d)
		}
		if report.Counting != nil {
			fmt.Fprintln(a.stdout, report.Counting)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := compareExit(changes, before, after); err != nil {
		return err
	}
	for _, d := range differences {
		if most > 0 && d.Grew(most) {
			return &exitError{conformance.Bad}
		}
	}
	return nil
}

func compareExit(changes []conformance.Change, before, after *conformance.Answer) error {
	for _, c := range changes {
		if c.Worse() {
			return &exitError{conformance.Bad}
		}
	}
	for _, a := range []*conformance.Answer{before, after} {
		if a.Fault != "" {
			return &targetError{a.Kernel + ": " + a.Fault, a.Hint}
		}
		if pass, fail, _ := a.Count(); pass+fail == 0 {
			return &targetError{a.Kernel + ": none of the cases could be asked of it", "see why each is a skip: crucible kernel test --kernel " + a.Kernel}
		}
	}
	return nil
}
