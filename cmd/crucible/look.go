package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"crucible/container"
)

// row is a container in `crucible list`, and with --json in the answer of every
// command that changes one.
type row struct {
	Name       string           `json:"name"`
	Status     container.Status `json:"status"`
	Pid        int              `json:"pid,omitempty"`
	ExitStatus *int             `json:"exitStatus,omitempty"`
	OOMKilled  bool             `json:"oomKilled,omitempty"`
	Address    string           `json:"address,omitempty"`
	Image      string           `json:"image,omitempty"`
	Created    time.Time        `json:"created,omitzero"`
	Command    string           `json:"command,omitempty"`
}

// deleted is the status of a row whose container is no more.
const deleted container.Status = "deleted"

func newListCommand(a *app) *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the containers",
		Long: `List the containers: name, status and exit status, process, address, image,
age and command.

Exit status: 0 success, 1 a container cannot be read; the others are listed.`,
		Example: "  crucible list\n  crucible list --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if os.Geteuid() == 0 {
				_ = a.root().Sweep() // what cannot be removed is not what was asked for
			}
			all, err := a.root().List()
			rows := []row{}
			for _, box := range all {
				var gone *container.NotFoundError
				if os.Geteuid() == 0 && errors.As(box.Recover(c.Context()), &gone) {
					continue
				}
				r, rowErr := rowFor(box)
				if errors.As(rowErr, &gone) {
					continue // deleted right now
				}
				if rowErr != nil {
					err = errors.Join(err, rowErr)
					continue
				}
				rows = append(rows, r)
			}
			if quiet {
				return errors.Join(err, a.printNames(rows))
			}
			return errors.Join(err, a.print(a.json, rows, func() error { return a.listTable(rows) }))
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the names only")
	a.jsonFlag(c)
	return c
}

func (a *app) printNames(rows []row) error {
	names := []string{}
	for _, r := range rows {
		names = append(names, r.Name)
	}
	return a.print(a.json, names, func() error {
		for _, n := range names {
			fmt.Fprintln(a.stdout, n)
		}
		return nil
	})
}

// rowAfter is the row of a container that a command has just changed; that, or
// its own end, may have been the end of it.
func rowAfter(box *container.Container) (row, error) {
	var gone *container.NotFoundError
	fresh, err := box.Root.Open(box.Name)
	r := row{}
	if err == nil {
		r, err = rowFor(fresh)
	}
	if errors.As(err, &gone) || errors.Is(err, fs.ErrNotExist) {
		return row{Name: box.Name, Status: deleted}, nil
	}
	return r, err
}

func rowFor(box *container.Container) (row, error) {
	status, err := box.Status()
	if err != nil {
		return row{}, err
	}
	r := row{Name: box.Name, Status: status, Image: box.State.Image, Created: box.State.Created}
	if status == container.Stopped {
		r.ExitStatus, r.OOMKilled = box.State.ExitStatus, box.State.OOMKilled
	} else {
		r.Pid = box.State.Init.Pid
	}
	if at := box.State.Attachment; at != nil {
		r.Address = at.Address.Addr().String()
	}
	spec, err := box.Spec()
	if err != nil {
		return r, err
	}
	r.Command = strings.Join(spec.Process.Args, " ")
	return r, nil
}

func (a *app) listTable(rows []row) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATUS\tPID\tADDRESS\tIMAGE\tAGE\tCOMMAND")
	for _, r := range rows {
		status := string(r.Status)
		if r.ExitStatus != nil {
			status += fmt.Sprintf(" (%d)", *r.ExitStatus)
		}
		if r.OOMKilled {
			status += " out of memory"
		}
		pid := "-"
		if r.Pid > 0 {
			pid = fmt.Sprint(r.Pid)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, status, pid, dash(r.Address), dash(r.Image), age(r.Created), shorten(printable(r.Command), 50))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func shorten(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n-1]) + "…"
}

// age is a duration as a person would say it.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func newInfoCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "info [flags] NAME",
		Short: "Show everything that is known of a container",
		Long: `Show what is known of a container. --json has everything, also the bundle that it
was made from.

Exit status: 0 success, 3 no such container.`,
		Example:           "  crucible info web\n  crucible info --json web",
		Args:              exactArgs(1, "the name of a container"),
		ValidArgsFunction: a.containerNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			box, err := a.open(c.Context(), args[0])
			if err != nil {
				return err
			}
			status, err := box.Status()
			if err != nil {
				return err
			}
			spec, err := box.Spec()
			if err != nil {
				return err
			}
			info := map[string]any{"name": box.Name, "status": status, "directory": box.Dir, "state": box.State, "bundle": spec}
			var groups map[string]string
			if g, err := box.Group(); err == nil && status != container.Stopped {
				groups = g.Paths()
				info["cgroups"] = groups
			}
			return a.print(a.json, info, func() error { return a.infoText(box, status, spec.Process.Args, groups) })
		},
	}
	a.jsonFlag(c)
	return c
}

func (a *app) infoText(box *container.Container, status container.Status, args []string, groups map[string]string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	line := func(key string, value any) { fmt.Fprintf(w, "%s\t%v\n", key, value) }
	s := box.State
	line("name", box.Name)
	line("status", status)
	line("command", printable(strings.Join(args, " ")))
	line("directory", box.Dir)
	line("created", s.Created.Format(time.RFC3339))
	if status != container.Stopped {
		line("pid", s.Init.Pid)
		line("monitor", s.Monitor.Pid)
	} else if s.ExitStatus != nil {
		line("exit status", *s.ExitStatus)
		if s.OOMKilled {
			line("killed", "out of memory: at the limit of --memory")
		}
	}
	line("network", s.Net.Mode)
	if s.Attachment != nil {
		line("address", s.Attachment.Address)
	}
	if s.Image != "" {
		line("image", s.Image)
	}
	for name, path := range groups {
		line("cgroup "+name, path)
	}
	return w.Flush()
}
