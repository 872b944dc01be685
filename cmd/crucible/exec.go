package main

import (
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"crucible/container"
)

type execOptions struct {
	container.ExecOptions
	interactive bool
}

func newExecCommand(a *app) *cobra.Command {
	var o execOptions
	c := &cobra.Command{
		Use:   "exec [flags] NAME -- PROGRAM [ARGS...]",
		Short: "Run a program in a running container",
		Long: `Run a program in a running container, in all its namespaces and with its limits.
A container cannot be checkpointed while such a program runs in it.

Exit status: the program's, 125 crucible failed, 126 the program cannot be
executed, 127 it does not exist in the container.`,
		Example: "  crucible exec web -- ps ax\n  crucible exec -t -i web -- bash",
		Args:    minArgs(2, "the name of a container, and a program"),
		ValidArgsFunction: func(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault // a program
			}
			return a.containerNames(false)(c, args, prefix)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("execute a program in a container"); err != nil {
				return err
			}
			box, err := a.open(c.Context(), args[0])
			if err != nil {
				return err
			}
			o.Args = args[1:]
			return runExec(c, a, box, &o)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.Terminal, "terminal", "t", false, "give it a terminal")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "give it our standard input")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "set a variable: KEY=VALUE")
	f.StringVarP(&o.Cwd, "workdir", "w", "", "working directory")
	f.StringVarP(&o.User, "user", "u", "", "run as UID[:GID]")
	a.jsonFlagFor(c, "print errors of crucible as JSON")
	f.SetInterspersed(false)
	return c
}

func runExec(c *cobra.Command, a *app, box *container.Container, o *execOptions) error {
	if len(o.Args) > 1 && o.Args[0] == "--" {
		o.Args = o.Args[1:]
	}
	x, err := box.Exec(c.Context(), o.ExecOptions)
	if err != nil {
		return err
	}
	defer x.Close()
	signals := a.interrupts.take(forwarded()...) // from now on the program decides what a signal means
	if o.Terminal && a.interactive() {
		if o.interactive { // else the keys are ours, and Ctrl-C a signal
			defer a.makeRaw()()
		}
		x.Resize(a.terminalSize())
	}
	go func() {
		for s := range signals {
			if s == unix.SIGWINCH {
				x.Resize(a.terminalSize())
				continue
			}
			x.Signal(s.(unix.Signal))
		}
	}()
	var input io.Reader
	if o.interactive {
		input = a.stdin
	}
	lost := x.Copy(input, a.stdout, a.stderr)
	code, err := x.Wait()
	switch {
	case err != nil:
		return err
	case lost != nil:
		return lost
	case code != 0:
		return &exitError{code}
	}
	return nil
}
