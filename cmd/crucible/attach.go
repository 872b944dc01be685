package main

import (
	"context"
	"fmt"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

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
			return a.attach(c.Context(), box, noInput)
		},
	}
	c.Flags().BoolVar(&noInput, "no-stdin", false, "send nothing")
	a.jsonFlagFor(c, "print errors of crucible as JSON")
	return c
}

func (a *app) attach(ctx context.Context, box *container.Container, noInput bool) error {
	// Ctrl-C ends this command, not the container; our own end gives the
	// terminal back.
	open, stop := signal.NotifyContext(ctx, unix.SIGHUP)
	defer stop()
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
		if !noInput {
			defer a.makeRaw()()
		}
		s.Rows, s.Columns = a.terminalSize()
		changes, stop := a.sizes()
		defer stop()
		s.Resized = changes
	}
	code, err := box.Attach(open, s)
	switch {
	case open.Err() != nil && ctx.Err() == nil:
		return &exitError{interrupted} // there is nobody to tell any more
	case err != nil:
		return err
	case code == container.Detached:
		fmt.Fprintln(a.stderr, "detached")
	case code != 0:
		return &exitError{code}
	}
	return nil
}
