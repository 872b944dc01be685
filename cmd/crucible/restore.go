package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"crucible/container/network"
	"crucible/images"
	"crucible/restore"
)

type restoreOptions struct {
	restore.Options
	publish  []string
	count    int
	parallel int
}

func newRestoreCommand(a *app) *cobra.Command {
	var o restoreOptions
	c := &cobra.Command{
		Use:   "restore [flags] NAME[@N]",
		Short: "Start a container from an image, in fresh namespaces",
		Long: `Start a container from an image: the newest of NAME, or NAME@N. It comes back
under its own name, or with --name as a clone with another name and address
while the original, or other clones, live. --count makes many clones at once.

What the container wrote to its root filesystem and to its tmpfs mounts comes
back with it, and so do its TCP connections if it keeps its address.

A damaged image is not restored: all of it is checked before any task runs. With
--lazy the tasks run first and the memory is checked while it is loaded; if it
turns out to be damaged the container is ended.

--verify compares what the kernel shows about the container, still frozen, with
what it showed before the checkpoint, which must have been made with --verify, too,
and prints what differs. Differences that must be, such as clocks that went on, are
declared in one table with their reasons, which --json prints for those that were
met. The container runs on in any case.

Exit status: 0 success, 1 it failed, 3 no such image, 4 the container is not
stopped, 5 the address or a port is taken, 6 the image cannot be used, 7 CRIU is
missing or does not work here, 9 it runs, but --verify found that something differs
or could not tell.`,
		Example: `  crucible restore web
  crucible restore --name twin --ip 10.77.0.9 web@2
  crucible restore --count 10 --name copy web
  crucible restore --lazy web
  crucible restore --verify web`,
		Args:              exactArgs(1, "an image: NAME or NAME@N"),
		ValidArgsFunction: a.imageNames(false),
		RunE:              func(c *cobra.Command, args []string) error { return runRestore(c, a, &o, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&o.Name, "name", "", "name of the restored container (default: the image's)")
	f.StringVar(&o.Address, "ip", "", "address on the bridge: A.B.C.D[/N]")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "forward a port of the host: [HOSTADDRESS:]HOSTPORT:PORT[/udp] (default: the image's, unless it is a clone)")
	f.IntVar(&o.count, "count", 0, "make this many clones: NAME-1, NAME-2, ...")
	f.IntVar(&o.parallel, "parallel", runtime.NumCPU(), "how many clones to make at the same time")
	f.BoolVar(&o.Lazy, "lazy", false, "let it run before its memory is loaded (userfaultfd)")
	f.BoolVar(&o.Verify, "verify", false, "compare what the kernel shows with what it showed before the checkpoint")
	f.BoolVar(&o.TCPClose, "tcp-close", false, "restore TCP connections closed")
	f.BoolVar(&o.Trace, "trace", false, "have CRIU log every step, for crucible timeline, also where that takes time")
	f.StringArrayVar(&o.Extra, "criu-option", nil, "any other option of CRIU: NAME[=VALUE]")
	a.jsonFlag(c)
	return c
}

func runRestore(c *cobra.Command, a *app, o *restoreOptions, ref string) error {
	switch {
	case o.count < 1 && c.Flags().Changed("count"):
		return misuse("--count must be positive")
	case o.count > 1 && o.Address != "":
		return misuse("--ip is for one container: clones choose their own addresses")
	case o.count > 1 && len(o.publish) > 0:
		return misuse("--publish is for one container")
	case o.parallel < 1:
		return misuse("--parallel must be at least 1")
	case o.Verify && o.Lazy:
		return misuse("--verify reads all memory before the tasks run, --lazy brings it afterwards: choose one")
	}
	for _, p := range o.publish {
		port, err := network.ParsePublish(p)
		if err != nil {
			return &usageError{err}
		}
		o.Publish = append(o.Publish, port)
	}
	if _, err := images.ParseRef(ref); err != nil {
		return &usageError{err}
	}
	if err := needRoot("restore a container"); err != nil {
		return err
	}
	image, err := a.images().Open(ref)
	if err != nil {
		return err
	}
	o.Root = a.root()
	if o.CRIU, err = a.criu(); err != nil {
		return err
	}
	o.Progress = a.progress()
	o.Timeline = a.timeline("find image and CRIU")
	results := []*restore.Result{}
	if o.count > 0 {
		results, err = restore.Clones(c.Context(), image, o.count, o.parallel, o.Options)
	} else {
		var r *restore.Result
		if r, err = restore.From(c.Context(), image, o.Options); err == nil {
			results = append(results, r)
		}
	}
	o.Progress("")
	err = errors.Join(err, a.printRestored(results, o.count > 0))
	for _, r := range results {
		if err == nil {
			err = differs(r.Verified)
		}
	}
	return err
}

func (a *app) printRestored(results []*restore.Result, many bool) error {
	var value any = results
	if !many && len(results) == 1 {
		value = results[0]
	}
	if len(results) == 0 {
		return nil
	}
	return a.print(a.json, value, func() error {
		for _, r := range results {
			fmt.Fprintln(a.stdout, strings.TrimSpace(r.Name+" "+r.Address))
			for _, note := range r.Notes {
				fmt.Fprintf(a.stderr, "%s: %s\n", r.Name, note)
			}
			prefix := ""
			if many {
				prefix = r.Name + ": "
			}
			a.printVerified(prefix, r.Verified)
		}
		if !many && a.tableWanted() {
			return phaseTable(a.stderr, results[0].Phases, 0)
		}
		return nil
	})
}
