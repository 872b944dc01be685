package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"crucible/container"
)

func newAttachCommand(a *app) *cobra.Command {
	var noInput bool
	c := &cobra.Command{
		Use:   "attach [flags] NAME",
		Short: "Connect to a container's standard streams",
		Long: `Connect to the standard streams, or the terminal, of a running container. On a
terminal Ctrl-P Ctrl-Q leaves it running.

Exit status: that of the container's program, 0 after Ctrl-P Ctrl-Q, 125 crucible
failed.`,
		Example:           "  crucible attach web\n  crucible attach --no-stdin web",
		Args:              exactArgs(1, "the name of a container"),
		ValidArgsFunction: a.containerNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("attach to a container"); err != nil {
				return err
			}
			box, err := a.open(c.Context(), args[0])
			if err != nil {
				return err
			}
			if _, err := box.Require("attach to", container.Created, container.Running, container.Frozen); err != nil {
				return err
			}
			return a.attach(box, noInput)
		},
	}
	c.Flags().BoolVar(&noInput, "no-stdin", false, "send nothing")
	a.jsonFlagFor(c, "print errors of crucible as JSON")
	return c
}

func (a *app) attach(box *container.Container, noInput bool) error {
	s := container.Streams{Stdout: a.stdout, Stderr: a.stderr}
	switch {
	case noInput:
	case a.interactive():
		keys := &detachReader{in: a.stdin, detach: make(chan struct{})}
		s.Input, s.Detach = keys, keys.detach
	default: // a file may hold those two bytes for reasons of its own
		s.Input = a.stdin
	}
	if box.State.Terminal && a.interactive() {
		defer a.makeRaw()()
		s.Rows, s.Columns = a.terminalSize()
		changes, stop := a.sizes()
		defer stop()
		s.Resized = changes
	}
	a.signals() // Ctrl-C ends this command, not the container
	code, err := box.Attach(s)
	switch {
	case err != nil:
		return err
	case code == container.Detached:
		fmt.Fprintln(a.stderr, "detached")
	case code != 0:
		return &exitError{code}
	}
	return nil
}
