package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"crucible/experiments/lab"
)

func newKernelExecCommand(a *app) *cobra.Command {
	var (
		t    targetFlags
		m    machineFlags
		keep string
	)
	c := &cobra.Command{
		Use:   "exec [flags] -- PROGRAM [ARGS...]",
		Short: "Run a static program as root in a virtual machine",
		Long: `Boot a kernel in a throw-away virtual machine, run a program of the host in it as
root and without input, and return its exit status. The machine has crucible,
CRIU, the files of the current directory at the same path, and what --with names;
variables of the environment that begin with CRUCIBLE_ are set in it, too. What
the program writes to /results is copied to the directory that --results names.

So ` + "`go test -exec`" + ` runs tests on any kernel.

Exit status: the program's own; 125 if it could not be run, or the machine did
not live as long as it.`,
		Example: `  crucible kernel exec --kernel debian:6.12 -- /usr/bin/crucible doctor
  go test -exec 'crucible kernel exec --kernel debian:6.12 --cgroup v2 --' ./container`,
		Args: minArgs(1, "the program to run"),
		RunE: func(c *cobra.Command, args []string) error {
			return runKernelExec(c, a, &t, &m, keep, args)
		},
	}
	c.Flags().SetInterspersed(false)
	t.add(c)
	m.add(c)
	a.jsonFlagFor(c, "print errors of crucible as JSON")
	m.withFlag(c)
	c.Flags().StringVar(&keep, "results", "", "directory for the kernel's log and what the program left in /results")
	return c
}

func runKernelExec(c *cobra.Command, a *app, t *targetFlags, f *machineFlags, keep string, args []string) error {
	m, err := a.machine(c.Context(), t, f)
	if err != nil {
		return err
	}
	program := args[0]
	if program != "/usr/bin/crucible" { // the guest's own
		if program, err = absolute(program); err != nil {
			return err
		}
		if len(f.with) == 0 {
			err = lab.Static(program)
		}
		if err != nil {
			return err
		}
		m.Files = append(m.Files, lab.File{Path: program, Mode: 0o755, Source: program})
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	files, err := lab.Directory(dir, maxAlong)
	if err != nil {
		return err
	}
	m.Files = append(m.Files, files...)
	m.Keep = keep
	m.Job = lab.Job{Exec: &lab.Exec{Args: append([]string{program}, args[1:]...), Env: ourEnvironment(), Dir: dir}}
	m.Handle = func(msg lab.Message) error {
		if _, err := a.stdout.Write(msg.Stdout); err != nil {
			return err
		}
		_, err := a.stderr.Write(msg.Stderr)
		return err
	}
	if err := m.Run(c.Context()); err != nil {
		return err
	}
	if status := m.Status(); status != 0 {
		return &exitError{status}
	}
	return nil
}

// maxAlong is how much of the current directory goes along: a package with its
// testdata does, a home directory does not.
const maxAlong = 32 << 20

// ourEnvironment is what a test of ours reads; the state root and CRIU are the
// guest's own.
func ourEnvironment() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "CRUCIBLE_") && name != "CRUCIBLE_ROOT" && name != "CRUCIBLE_CRIU" && name != "CRUCIBLE_BINARY" {
			env = append(env, e)
		}
	}
	return env
}
