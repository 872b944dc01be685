package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"crucible/container"
	"crucible/container/network"
	"crucible/images"
	"crucible/images/edit"
)

// editOptions are the flags of `crucible image edit`.
type editOptions struct {
	hostname, address, memory string
	tcpClose, dryRun          bool
	env, volumes              []string
	limits                    container.RunOptions
}

func newImageEditCommand(a *app) *cobra.Command {
	var o editOptions
	c := &cobra.Command{
		Use:   "edit [flags] NAME[@N]",
		Short: "Make an image from another one, with something in it changed",
		Long: `Make an image from another one, with something in it changed. The image stays as
it is; the new one is the newest of the container, names the one that it was made
from, and shares with it on the disk what is the same.

--hostname changes the name that the container has, and the variable HOSTNAME where
it has the old one.

--address changes its address on the bridge, and that of the sockets that are bound
to it. TCP connections cannot follow: --tcp-close closes them.

--env changes a variable for programs that exec starts, and in the environment of
the processes, which is in their memory: there a value can be replaced by one that
is no longer, and a program that has read it already does not notice.

--volume changes where a bind mount comes from. OLD is its path on the host, or in
the container. The files that processes have open must be there, too.

--memory, --cpus and --pids change the limits of the container's cgroup.

What the program itself has noted, such as its address, stays in its memory.

Exit status: 0 success, 1 the image cannot have this change, 2 nothing to change, 3
no such image, 6 the image cannot be read.`,
		Example: `  crucible image edit --hostname db web@1
  crucible image edit --address 10.77.0.9 --env MODE=test --dry-run web
  crucible image edit --volume /srv/a=/srv/b --memory 512m web@3`,
		Args:              exactArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			options, err := o.parse(c)
			if err != nil {
				return err
			}
			return runImageEdit(c.Context(), a, args[0], options, o.dryRun)
		},
	}
	f := c.Flags()
	f.StringVar(&o.hostname, "hostname", "", "the new host name")
	f.StringVar(&o.address, "address", "", "the new address on the bridge, A.B.C.D[/N]")
	f.BoolVar(&o.tcpClose, "tcp-close", false, "with --address: close the TCP connections")
	f.StringArrayVarP(&o.env, "env", "e", nil, "KEY=VALUE: the new value of a variable (repeatable)")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "OLD=NEW: the new path on the host of a volume (repeatable)")
	f.StringVar(&o.memory, "memory", "", "limit of memory, in bytes or with k, m, g; 0 for none")
	f.Float64Var(&o.limits.CPUs, "cpus", 0, "limit of processor time, in processors; 0 for none")
	f.Int64Var(&o.limits.Pids, "pids", 0, "limit of tasks; 0 for none")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "show the changes and write nothing")
	a.jsonFlag(c)
	return c
}

// parse makes edit.Options of the flags.
func (o *editOptions) parse(c *cobra.Command) (e edit.Options, err error) {
	given := c.Flags().Changed
	if !given("hostname") && !given("address") && !given("env") && !given("volume") && !given("memory") && !given("cpus") && !given("pids") {
		return e, misuse("nothing to change: give --hostname, --address, --env, --volume, --memory, --cpus or --pids")
	}
	e.Hostname, e.Env, e.TCPClose = o.hostname, o.env, o.tcpClose
	if given("hostname") && o.hostname == "" {
		return e, misuse("--hostname: is empty")
	}
	if given("address") {
		if e.Address, err = network.ParseAddress(o.address); err != nil {
			return e, &usageError{err}
		}
	}
	for _, v := range o.volumes {
		old, path, ok := strings.Cut(v, "=")
		if !ok || old == "" || path == "" {
			return e, misuse("--volume %s: must be OLD=NEW", v)
		}
		e.Volumes = append(e.Volumes, edit.Volume{Of: old, Path: path})
	}
	if !given("memory") && !given("cpus") && !given("pids") {
		return e, nil
	}
	if o.limits.Memory, err = parseSize(o.memory); err != nil {
		return e, misuse("--memory: %w", err)
	}
	e.Limits, err = limits(c, o.limits)
	return e, err
}

// editResult is the answer of `crucible image edit --json`.
type editResult struct {
	Image     string        `json:"image,omitempty"` // "" after a dry run
	Directory string        `json:"directory,omitempty"`
	From      string        `json:"from"`
	Changes   []edit.Change `json:"changes"`
	Notes     []string      `json:"notes,omitempty"` // what stays as it was, and why
}

func runImageEdit(ctx context.Context, a *app, ref string, o edit.Options, dryRun bool) error {
	i, err := a.images().Open(ref)
	if err != nil {
		return err
	}
	e, err := edit.New(i, o)
	if err != nil {
		return err
	}
	defer e.Close()
	r := editResult{From: i.Ref(), Changes: e.Changes(), Notes: e.Notes()}
	if r.Changes == nil {
		r.Changes = []edit.Change{}
	}
	if !dryRun {
		var made *images.Image
		if made, err = e.Write(ctx, edit.WriteOptions{Command: os.Args}); err != nil {
			return err
		}
		r.Image, r.Directory = made.Ref(), made.Dir()
	}
	return a.print(a.json, r, func() error {
		r.diff(a.stdout)
		for _, n := range r.Notes {
			fmt.Fprintln(a.stderr, "note:", printable(n))
		}
		if r.Image != "" {
			fmt.Fprintln(a.stdout, r.Image)
		}
		return nil
	})
}

// diff shows the changes by their files, the old value above the new one.
func (r editResult) diff(w io.Writer) {
	file := ""
	for _, c := range r.Changes {
		if c.File != file {
			fmt.Fprintln(w, printable(c.File))
			file = c.File
		}
		if c.Old != "" {
			fmt.Fprintf(w, "  -%s: %s\n", printable(c.What), printable(c.Old))
		}
		if c.New != "" {
			fmt.Fprintf(w, "  +%s: %s\n", printable(c.What), printable(c.New))
		}
	}
}
