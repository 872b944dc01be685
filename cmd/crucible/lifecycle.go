package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"crucible/container"
)

func newCreateCommand(a *app) *cobra.Command {
	var o defineOptions
	c := &cobra.Command{
		Use:   "create [flags] -- PROGRAM [ARGS...]",
		Short: "Set up a container up to the start of its program",
		Long: `Set up a container with all its namespaces, mounts and limits, and stop just
before its program starts. It takes the flags of run, and prints the name.

Exit status: 0 success, 2 a flag or the bundle makes no sense, 5 the name, the
address or a port is taken.`,
		Example: "  crucible create --name web -- python3 -m http.server\n  crucible start web",
		RunE: func(c *cobra.Command, args []string) error {
			spec, create, err := o.define(c, args)
			if err != nil {
				return err
			}
			if o.explain {
				return printPlan(a, spec)
			}
			if err := needRoot("create a container"); err != nil {
				return err
			}
			box, err := a.root().Create(o.name, spec, create)
			if err != nil {
				return err
			}
			if err := box.Launch(c.Context(), true, o.interactive); err != nil {
				discard(box)
				return err
			}
			return a.printChanged(box)
		},
	}
	o.addFlags(a, c)
	a.jsonFlag(c)
	c.Flags().SetInterspersed(false)
	return c
}

func newStartCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "start [flags] NAME...",
		Short: "Start a created or stopped container",
		Long: `Let the program of a created container start, or start that of a stopped one anew.

Exit status: 0 success, 3 no such container, 4 it runs already, 126 the program
cannot be executed, 127 it does not exist in the container.`,
		Example:           "  crucible start web",
		Args:              minArgs(1, "the names of containers"),
		ValidArgsFunction: a.containerNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("start a container"); err != nil {
				return err
			}
			return a.each(c.Context(), args, func(box *container.Container) error { return box.Start(c.Context()) })
		},
	}
	a.jsonFlag(c)
	return c
}

func newFreezeCommand(a *app) *cobra.Command {
	var deadline time.Duration
	c := &cobra.Command{
		Use:   "freeze [flags] NAME",
		Short: "Stop every task of a container by the freezer cgroup",
		Long: `Stop every task of a container by the freezer cgroup. When not all of them stop in
time, all go on.

Exit status: 0 all have stopped, 1 they did not in time, 3 no such container, 4 it
is not running.`,
		Example:           "  crucible freeze web",
		Args:              exactArgs(1, "the name of a container"),
		ValidArgsFunction: a.containerNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("freeze a container"); err != nil {
				return err
			}
			box, err := a.open(c.Context(), args[0])
			if err != nil {
				return err
			}
			took, err := box.Freeze(c.Context(), deadline)
			if err != nil {
				return err
			}
			if !a.json {
				return a.printChanged(box)
			}
			r, err := rowAfter(box)
			return errors.Join(err, a.print(true, frozen{r, took.Nanoseconds()}, nil))
		},
	}
	c.Flags().DurationVar(&deadline, "deadline", 10*time.Second, "give up after this time")
	a.jsonFlag(c)
	return c
}

// frozen is what `crucible freeze --json` prints.
type frozen struct {
	row
	Nanoseconds int64 `json:"nanoseconds"` // until the last task had stopped
}

func newThawCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:               "thaw [flags] NAME...",
		Short:             "Let a frozen container go on",
		Long:              "Let a frozen container go on.\n\nExit status: 0 success, 3 no such container, 4 it is not frozen.",
		Example:           "  crucible thaw web",
		Args:              minArgs(1, "the names of containers"),
		ValidArgsFunction: a.containerNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("thaw a container"); err != nil {
				return err
			}
			return a.each(c.Context(), args, func(box *container.Container) error { return box.Thaw(c.Context()) })
		},
	}
	a.jsonFlag(c)
	return c
}

func newKillCommand(a *app) *cobra.Command {
	var all bool
	var sig string
	c := &cobra.Command{
		Use:   "kill [flags] NAME...",
		Short: "Send a signal to a container",
		Long: `Send a signal to a container's first process, or with --all to every process of
it. A frozen container gets it when it goes on, but SIGKILL at once.

Exit status: 0 success, 3 no such container, 4 it is stopped.`,
		Example:           "  crucible kill web\n  crucible kill --signal HUP web",
		Args:              minArgs(1, "the names of containers"),
		ValidArgsFunction: a.containerNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := parseSignal(sig)
			if err != nil {
				return &usageError{err}
			}
			if err := needRoot("kill a container"); err != nil {
				return err
			}
			return a.each(c.Context(), args, func(box *container.Container) error { return box.Kill(c.Context(), number, all) })
		},
	}
	c.Flags().StringVarP(&sig, "signal", "s", "KILL", "the signal, by name or number")
	c.Flags().BoolVarP(&all, "all", "a", false, "send it to every process")
	a.jsonFlag(c)
	return c
}

func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return unix.Signal(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	if n := realTimeSignal(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("send signal %q: unknown, must be a name such as TERM or RTMIN+1, or a number from 1 to 64", s)
}

// realTimeSignal reads SIGRTMIN+N and SIGRTMAX-N; 0 is none. The C library
// keeps the kernel's first two for itself (signal(7)).
func realTimeSignal(name string) unix.Signal {
	const least, most = 34, 64
	base, rest := least, ""
	switch {
	case strings.HasPrefix(name, "SIGRTMIN"):
		rest = strings.TrimPrefix(name, "SIGRTMIN")
	case strings.HasPrefix(name, "SIGRTMAX"):
		base, rest = most, strings.TrimPrefix(name, "SIGRTMAX")
	default:
		return 0
	}
	if rest == "" {
		return unix.Signal(base)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || rest[0] != '+' && rest[0] != '-' || base+n < least || base+n > most {
		return 0
	}
	return unix.Signal(base + n)
}

func newStopCommand(a *app) *cobra.Command {
	var grace time.Duration
	c := &cobra.Command{
		Use:   "stop [flags] NAME...",
		Short: "Ask a container to end, and kill it when it does not",
		Long: `Send SIGTERM to a container's first process, and kill all of the container when it
has not ended after the grace period. A program that does not handle SIGTERM, and
a frozen container, are killed at once. A stopped container stays as it is.

Exit status: 0 it is stopped, 3 no such container.`,
		Example:           "  crucible stop --grace 30s web",
		Args:              minArgs(1, "the names of containers"),
		ValidArgsFunction: a.containerNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("stop a container"); err != nil {
				return err
			}
			return a.each(c.Context(), args, func(box *container.Container) error {
				_, err := box.Stop(c.Context(), grace)
				return err
			})
		},
	}
	c.Flags().DurationVar(&grace, "grace", 10*time.Second, "how long it may take to end by itself")
	a.jsonFlag(c)
	return c
}

func newWaitCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "wait [flags] NAME",
		Short: "Wait until a container has stopped and print its exit status",
		Long: `Wait until a container has stopped and print the exit status of its program: 128+N
after signal N, 255 if nobody could see it.

Exit status: 0 it has stopped, 3 no such container.`,
		Example:           "  crucible wait web",
		Args:              exactArgs(1, "the name of a container"),
		ValidArgsFunction: a.containerNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			box, err := a.open(c.Context(), args[0])
			if err != nil {
				return err
			}
			code, err := box.Wait(c.Context())
			if err != nil {
				return err
			}
			return a.print(a.json, map[string]any{"name": box.Name, "exitStatus": code}, func() error {
				_, err := fmt.Fprintln(a.stdout, code)
				return err
			})
		},
	}
	a.jsonFlag(c)
	return c
}

func newDeleteCommand(a *app) *cobra.Command {
	var o container.DeleteOptions
	c := &cobra.Command{
		Use:     "delete [flags] NAME...",
		Aliases: []string{"rm"},
		Short:   "Delete a container; its images stay",
		Long: `Delete a stopped container: what it wrote, its log and its address. Its images
stay. With --force it is stopped first.

Exit status: 0 success, 3 no such container, 4 it is not stopped.`,
		Example:           "  crucible delete web\n  crucible delete -f web db",
		Args:              minArgs(1, "the names of containers"),
		ValidArgsFunction: a.containerNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("delete a container"); err != nil {
				return err
			}
			return a.each(c.Context(), args, func(box *container.Container) error { return box.Delete(c.Context(), o) })
		},
	}
	c.Flags().BoolVarP(&o.Force, "force", "f", false, "stop it first")
	a.jsonFlag(c)
	return c
}
