package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"crucible/experiments/conformance"
	"crucible/experiments/engine"
	"crucible/experiments/lab"
	"crucible/experiments/plan"
	"crucible/experiments/report"
)

// kernelExperiment runs an experiment on targets, each in a machine of its own.
func (a *app) kernelExperiment(ctx context.Context, f *matrixFlags, o conformance.Options, targets []conformance.Target) error {
	flags := experimentFlags()
	p, err := plan.Read(f.experiment, flags)
	if err != nil {
		return err
	}
	e := engine.Options{Plan: p, Dir: f.output, Version: version, Runs: f.runs, Flags: flags}
	if e.Dir == "" {
		e.Dir = strings.TrimSuffix(f.experiment, filepath.Ext(f.experiment)) + ".results"
	}
	var all []engine.Target
	for _, t := range targets {
		all = append(all, engine.Target{Kernel: t.Kernel.Name, CRIU: t.CRIU.Version, Cgroup: t.Cgroup, Machine: &lab.Machine{
			QEMU: o.QEMU, Kernel: t.Kernel.Image, Modules: t.Kernel.Modules, Absent: t.Kernel.Absent,
			Files: t.CRIU.Files, Criu: t.CRIU.Path, Rundir: t.CRIU.Rundir, Cgroup: t.Cgroup,
			MemoryMiB: o.MemoryMiB, CPUs: o.CPUs, Append: o.Append,
		}})
	}
	progress := a.progress()
	progress("booting")
	e.Event = func(ev engine.Event) {
		progress(fmt.Sprintf("run %d of %d: %s", ev.Done, ev.All, shorten(ev.Cell, 40)))
	}
	results, err := engine.RunMatrix(ctx, e, all, o.Parallel)
	progress("")
	if results == nil {
		return err
	}
	r := report.New(results)
	printErr := a.print(a.json, r, func() error {
		if err := r.WriteText(a.stdout); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "\nresults: %s\n", results.Dir)
		return err
	})
	if printErr != nil || err != nil {
		return errors.Join(err, printErr)
	}
	return verdictOf(r.ExitCode())
}
