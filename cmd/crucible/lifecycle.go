package main

import (
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
		Use:     "create [flags] -- PROGRAM [ARGS...]",
		Short:   "Set up a container up to the start of its program",
		Long:    "Set up a container with all its namespaces, mounts and limits, and stop just before\nits program starts. It takes the flags of run, and prints the name.",
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
			fmt.Fprintln(a.stdout, box.Name)
			return nil
		},
	}
	o.addFlags(a, c)
	c.Flags().SetInterspersed(false)
	return c
}

func newStartCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:               "start NAME...",
		Short:             "Start a created or stopped container",
		Long:              "Let the program of a created container start, or start that of a stopped one anew.",
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
	return c
}

func newFreezeCommand(a *app) *cobra.Command {
	var deadline time.Duration
	c := &cobra.Command{
		Use:               "freeze NAME",
		Short:             "Stop every task of a container by the freezer cgroup",
		Long:              "Stop every task of a container by the freezer cgroup. Exit status 0 means that all\nof them have stopped; when they do not in time, all go on.",
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
			return a.print(a.json, map[string]any{"name": box.Name, "nanoseconds": took.Nanoseconds()}, func() error {
				_, err := fmt.Fprintf(a.stdout, "%s\n", box.Name)
				return err
			})
		},
	}
	c.Flags().DurationVar(&deadline, "deadline", 10*time.Second, "give up after this time")
	a.jsonFlag(c)
	return c
}

func newThawCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "thaw NAME...",
		Short:             "Let a frozen container go on",
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
}

func newKillCommand(a *app) *cobra.Command {
	var all bool
	var sig string
	c := &cobra.Command{
		Use:               "kill NAME...",
		Short:             "Send a signal to a container",
		Long:              "Send a signal to a container's first process, or with --all to every task of it.",
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
	c.Flags().BoolVarP(&all, "all", "a", false, "send it to every task")
	return c
}

func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("there is no signal %q", s)
}

func newStopCommand(a *app) *cobra.Command {
	var grace time.Duration
	c := &cobra.Command{
		Use:               "stop NAME...",
		Short:             "Ask a container to end, and kill it when it does not",
		Long:              "Send SIGTERM to a container's first process, and kill all of the container when it has\nnot ended after the grace period. A program that does not handle SIGTERM is killed at once.",
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
	return c
}

func newWaitCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:               "wait NAME",
		Short:             "Wait until a container has stopped and print its exit status",
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
		Use:               "delete NAME...",
		Aliases:           []string{"rm"},
		Short:             "Delete a container; its images stay",
		Example:           "  crucible delete -f web",
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
	return c
}
