package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crucible/experiments/conformance"
	"crucible/experiments/lab"
	"crucible/experiments/workload"
)

// caseFlags choose the cases, and how they are run.
type caseFlags struct {
	names   []string
	command *cobra.Command
	timeout time.Duration
	results string
	jobs    int
}

func (f *caseFlags) add(c *cobra.Command) {
	f.command = c
	c.Flags().StringSliceVar(&f.names, "case", nil, "only these cases, separated by commas (default: all)")
	c.Flags().DurationVar(&f.timeout, "timeout", conformance.DefaultTimeout, "how long a case may take")
	c.Flags().StringVar(&f.results, "results", "", "directory for logs, and for the images of failed cases")
	c.Flags().IntVarP(&f.jobs, "jobs", "j", 0, "machines at a time (default: as processors and memory allow)")
	_ = c.RegisterFlagCompletionFunc("case", completeCases)
}

func completeCases(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	done := ""
	if i := strings.LastIndex(prefix, ","); i >= 0 {
		done, prefix = prefix[:i+1], prefix[i+1:]
	}
	var names []string
	for _, c := range workload.Cases() {
		if strings.HasPrefix(c.Name, prefix) {
			names = append(names, done+c.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func (f *caseFlags) cases() ([]workload.Case, error) {
	if !f.command.Flags().Changed("case") {
		return workload.Cases(), nil
	}
	if len(f.names) == 0 {
		return nil, misuse("--case: name at least one; `crucible kernel cases` lists them")
	}
	var cases []workload.Case
	seen := map[string]bool{}
	for _, name := range f.names {
		name = strings.TrimSpace(name)
		c, err := workload.Find(name)
		if err != nil {
			return nil, &usageError{err}
		}
		if !seen[c.Name] {
			seen[c.Name] = true
			cases = append(cases, c)
		}
	}
	return cases, nil
}

// options are what the flags make of a run.
func (f *caseFlags) options(ctx context.Context, m *machineFlags) (conformance.Options, error) {
	var o conformance.Options
	cases, err := f.cases()
	if err != nil {
		return o, err
	}
	memory, err := m.mebibytes()
	if err != nil {
		return o, err
	}
	if f.timeout <= 0 {
		return o, misuse("--timeout %s: must be longer than nothing", f.timeout)
	}
	if f.jobs < 0 {
		return o, misuse("--jobs %d: must be a number of machines", f.jobs)
	}
	results := f.results
	if results != "" {
		if results, err = filepath.Abs(results); err != nil {
			return o, err
		}
		if err := os.MkdirAll(results, 0o755); err != nil {
			return o, misuse("--results: %w", err)
		}
	}
	qemu, err := lab.FindQEMU(ctx)
	if err != nil {
		return o, err
	}
	jobs := f.jobs
	if jobs == 0 {
		jobs = machinesAtATime(memory, m.cpus)
	}
	return conformance.Options{
		QEMU: qemu, Cases: cases, MemoryMiB: memory, CPUs: m.cpus, Parallel: jobs,
		Timeout: f.timeout, Append: m.append, Keep: results,
	}, nil
}

// machinesAtATime is one for each processor, as far as three quarters of the
// free memory go; QEMU itself takes some 100 MiB.
func machinesAtATime(memory, cpus int) int {
	fit := int(freeMemory()>>20) * 3 / 4 / (memory + 100)
	return max(1, min(runtime.NumCPU()/cpus, fit))
}

func newKernelTestCommand(a *app) *cobra.Command {
	var (
		t    targetFlags
		m    machineFlags
		f    caseFlags
		n    countFlag
		ktap bool
	)
	c := &cobra.Command{
		Use:   "test [flags]",
		Short: "Ask a kernel the conformance cases",
		Long: `Boot a kernel in a throw-away virtual machine and run the conformance cases on it:
` + "`crucible kernel cases`" + ` lists them. A case that the kernel or CRIU lacks a feature for
is a skip, with the feature named.

Without --kernel the current directory is taken for a kernel tree: it is built
first (make olddefconfig, make), and the image that comes of it is tested. So the
command can be given to git bisect as it is. With --results the kernel's log is
kept (--append ignore_loglevel for all of it), and of failed cases CRIU's logs and
the image. A case that runs out of time is asked once more, in a fresh machine
whose results are in a folder that ends in .2.

` + countHelp + `

Exit status: 0 good; 1 bad: a case failed, or the kernel panicked, complained or
fell silent once the guest was ready; 125 it could not be tested: it does not
build, or boot, none of the cases applies to it, or the lab is at fault.`,
		Example: `  crucible kernel test --kernel debian:6.12
  crucible kernel test --kernel arch/x86/boot/bzImage --case tcp-established,timerfd-periodic
  crucible kernel test --count --case threads --kernel debian:6.12
  git bisect run crucible kernel test --case tcp-established`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.kernelTest(c.Context(), &t, &m, &f, &n, ktap)
		},
	}
	t.add(c)
	m.add(c)
	f.add(c)
	n.add(c)
	c.Flags().BoolVar(&ktap, "ktap", false, "print KTAP, the format of the kernel's own tests")
	a.jsonFlag(c)
	return c
}

func (a *app) kernelTest(ctx context.Context, t *targetFlags, m *machineFlags, f *caseFlags, n *countFlag, ktap bool) error {
	switch {
	case ktap && a.json:
		return misuse("--ktap and --json: one of them")
	case strings.Contains(t.kernel, ",") && strings.HasPrefix(t.kernel, "debian:"):
		return misuse("--kernel %s: name one; `crucible kernel matrix` asks several", t.kernel)
	}
	o, err := f.options(ctx, m)
	if err != nil {
		return err
	}
	if err := n.options(ctx, a, &o); err != nil {
		return err
	}
	if err := a.buildHere(ctx, t, o.Keep); err != nil {
		return err
	}
	targets, err := a.targets(ctx, []string{t.kernel}, []string{a.criuPath}, []string{t.cgroup})
	if err != nil {
		return err
	}
	streamed, first := !a.json && !ktap, true
	progress := a.progress()
	o.Event = func(e conformance.Event) {
		switch {
		case e.Ready != nil && streamed && first:
			first = false
			progress("")
			fmt.Fprintf(a.stdout, "%s, up in %.1f s by %s\n", e.Ready.Release, e.Ready.Uptime.Seconds(), accelerator(o.QEMU))
		case e.Begin != "":
			progress(e.Begin)
		case e.Outcome != nil && streamed:
			progress("")
			fmt.Fprintln(a.stdout, a.coloured(e.Outcome))
		}
	}
	progress("booting " + targets[0].Kernel.Name)
	report, err := conformance.Run(ctx, targets, o)
	progress("")
	if err != nil {
		return err
	}
	a.noteModules(targets, report)
	return a.tell(report, ktap, o.Keep)
}

// noteModules tells of kernels that came without modules, where cases were
// skipped: that may be why.
func (a *app) noteModules(targets []conformance.Target, r *conformance.Report) {
	told := map[string]bool{}
	for i, t := range targets {
		_, _, skip := r.Answers[i].Count()
		if a.json || skip == 0 || len(t.Kernel.Modules) > 0 || told[t.Kernel.Name] {
			continue
		}
		told[t.Kernel.Name] = true
		fmt.Fprintf(a.stderr, "%s: no modules were found with it; where they are not built in, name the directory of its build, a vmlinuz-RELEASE beside its lib/modules/RELEASE, or debian:VERSION\n", t.Kernel.Name)
	}
}

// tell prints what is left to print of a test, and makes the exit code.
func (a *app) tell(r *conformance.Report, ktap bool, results string) error {
	answer := &r.Answers[0]
	var err error
	switch {
	case a.json:
		err = a.print(true, r, nil)
	case ktap:
		err = r.WriteKTAP(a.stdout)
	case len(answer.Outcomes) > 0:
		fmt.Fprintf(a.stdout, "%s, in %.1f s\n", answer.Summary(), r.Took.Seconds())
		if r.Counting != nil {
			fmt.Fprintln(a.stdout, r.Counting)
		}
		if results != "" {
			fmt.Fprintln(a.stdout, "results:", results)
		}
	}
	if err != nil {
		return err
	}
	if answer.Fault != "" && r.ExitCode() == conformance.Untested {
		return &targetError{answer.Fault, answer.Hint}
	}
	if code := r.ExitCode(); code != 0 {
		return &exitError{code}
	}
	return nil
}

// targetError is the fault of a target.
type targetError struct{ text, hint string }

func (e *targetError) Error() string { return e.text }
func (e *targetError) Hint() string  { return e.hint }

// buildHere builds the kernel of the current directory, if none is named and it
// is a tree.
func (a *app) buildHere(ctx context.Context, t *targetFlags, results string) error {
	dir, err := os.Getwd()
	if err != nil || t.kernel != "" || !lab.IsTree(dir) {
		return err
	}
	progress := a.progress()
	progress("building the kernel in " + dir)
	defer progress("")
	var log bytes.Buffer
	err = lab.Build(ctx, dir, &log)
	if results != "" {
		err = errors.Join(err, os.MkdirAll(results, 0o755), os.WriteFile(filepath.Join(results, "build.log"), log.Bytes(), 0o644))
	}
	if err != nil && ctx.Err() == nil {
		progress("")
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		fmt.Fprintln(a.stderr, strings.Join(lines[max(0, len(lines)-10):], "\n"))
	}
	return err
}

// targets are all combinations.
func (a *app) targets(ctx context.Context, kernels, crius, cgroups []string) ([]conformance.Target, error) {
	store, err := a.archive()
	if err != nil {
		return nil, err
	}
	defer store.Progress("")
	var targets []conformance.Target
	found := map[string]lab.CRIU{}
	for _, name := range kernels {
		kernel, err := lab.FindKernel(ctx, store, name)
		if err != nil {
			return nil, err
		}
		for _, version := range crius {
			criu, known := found[version]
			if !known {
				if criu, err = lab.FindCRIU(ctx, store, version); err != nil {
					return nil, err
				}
				found[version] = criu
			}
			for _, layout := range cgroups {
				if err := checkCgroup(layout); err != nil {
					return nil, err
				}
				targets = append(targets, conformance.Target{Kernel: kernel, CRIU: criu, Cgroup: layout})
			}
		}
	}
	return targets, nil
}

func accelerator(q *lab.QEMU) string {
	if q.KVM {
		return "KVM"
	}
	return "software emulation"
}

// coloured is an outcome's line, with its verdict in colour on a terminal.
func (a *app) coloured(o *conformance.Outcome) string {
	line := o.Line()
	if !a.colours() {
		return line
	}
	colour := map[workload.Verdict]string{workload.Pass: "32", workload.Fail: "31", workload.Skip: "33"}[o.Verdict]
	return "\x1b[" + colour + "m" + line[:4] + "\x1b[0m" + line[4:]
}
