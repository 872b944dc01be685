package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"crucible/checkpoint"
	"crucible/checkpoint/preflight"
	"crucible/images"
)

type checkpointOptions struct {
	checkpoint.Options
	choice     preflight.Options
	ghostLimit string
	pack       bool
	keep       int
}

func newCheckpointCommand(a *app) *cobra.Command {
	var o checkpointOptions
	c := &cobra.Command{
		Use:   "checkpoint [flags] NAME",
		Short: "Write a container's state to a new image, and stop it",
		Long: `Write a container's state to a new image directory, NAME@N in the store, and stop
the container once the image is whole; with -R it goes on. If anything fails it
goes on in any case, and no part of an image stays behind.

Open connections, file locks, deleted files and the like are found before the
freeze and passed to CRIU, so the plain command is enough for most programs.
--dry-run shows what was found and what stands in the way.

Where the kernel can tell which memory has changed (crucible doctor: soft-dirty),
the next checkpoint can build on an image that was written with -R: with --parent
only memory that has changed since is written, and the image needs its parent to
be restored. The parent must be the latest image with -R or --pre-dump, and the
container must have run on since. --pre-dump writes memory alone while the
container runs, and stops it only for as long as it takes to get hold of the
pages: such an image can be a parent, and not be restored. Memory that processes
share is written whole each time.

On any kernel --pack keeps each page of memory once for all images, compressed, after
the container has been stopped or goes on: see crucible image pack. --keep N then
removes older images of the container: see crucible image prune.

--verify notes in the image everything that the kernel shows about the frozen
container (processes, memory, descriptors, sockets, mounts, network, cgroup), for
` + "`crucible restore --verify`" + ` to compare. With -R it is compared at once with what the
kernel shows after the dump: the checkpoint itself must change nothing. It takes
its time, in which the container stands still.

Exit status: 0 success, 1 it failed, or something stands in the way, 3 no such
container or parent, 4 it is not running or frozen, 6 the parent is damaged, 7 CRIU
is missing or does not work here, 9 the image is whole and --verify found that
something differs.`,
		Example: `  crucible checkpoint web
  crucible checkpoint -R web
  crucible checkpoint -R --parent web@1 web
  crucible checkpoint --pre-dump web && crucible checkpoint --parent web web
  crucible checkpoint -R --pack --keep 5 web
  crucible checkpoint --verify web && crucible restore --verify web
  crucible checkpoint --dry-run --json web`,
		Args:              exactArgs(1, "the name of a container"),
		ValidArgsFunction: a.containerNames(false),
		RunE:              func(c *cobra.Command, args []string) error { return runCheckpoint(c, a, &o, args[0]) },
	}
	f := c.Flags()
	f.BoolVarP(&o.LeaveRunning, "leave-running", "R", false, "let the container go on")
	f.StringVar(&o.Parent, "parent", "", "write only memory that has changed since this image: NAME or NAME@N")
	f.BoolVar(&o.PreDump, "pre-dump", false, "write memory for a later --parent, and let the container go on")
	f.BoolVar(&o.pack, "pack", false, "keep pages that the store has, or that are there twice, once, compressed")
	f.IntVar(&o.keep, "keep", 0, "remove images of the container, but not the newest N")
	f.BoolVar(&o.DryRun, "dry-run", false, "look for what stands in the way, and do nothing")
	f.BoolVar(&o.Verify, "verify", false, "note what the kernel shows, for restore --verify; with -R compare it with what it shows afterwards")
	f.BoolVar(&o.choice.TCPEstablished, "tcp-established", false, "keep TCP connections (found out by itself)")
	f.BoolVar(&o.choice.TCPClose, "tcp-close", false, "close TCP connections in the image")
	f.BoolVar(&o.choice.SkipInFlight, "skip-in-flight", false, "leave out connections not accepted yet (found out by itself)")
	f.BoolVar(&o.choice.FileLocks, "file-locks", false, "keep file locks (found out by itself)")
	f.BoolVar(&o.choice.ShellJob, "shell-job", false, "the container's session is outside of it")
	f.BoolVar(&o.choice.ExtUnixSockets, "ext-unix-sk", false, "allow unix sockets whose other end is outside")
	f.BoolVar(&o.choice.LinkRemap, "link-remap", false, "allow deleted files that have other names (found out by itself)")
	f.StringVar(&o.ghostLimit, "ghost-limit", "", "largest deleted file to keep (found out by itself)")
	f.StringArrayVar(&o.Extra, "criu-option", nil, "any other option of CRIU: NAME[=VALUE]")
	f.StringVar(&o.WorkDir, "work-dir", "", "directory for CRIU's log (default: in the container's)")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Second, "give up when the tasks do not freeze in this time")
	_ = c.RegisterFlagCompletionFunc("parent", a.imageNames(true))
	a.jsonFlag(c)
	return c
}

func runCheckpoint(c *cobra.Command, a *app, o *checkpointOptions, name string) error {
	limit, err := parseSize(o.ghostLimit)
	if err != nil || limit > 1<<32-1 {
		return misuse("--ghost-limit: must be a size below 4g, not %q", o.ghostLimit)
	}
	if o.Verify && (o.PreDump || o.DryRun) {
		return misuse("--verify is for a checkpoint that can be restored: not with --pre-dump or --dry-run")
	}
	if o.Timeout <= 0 {
		return misuse("--timeout %s: must be longer than nothing", o.Timeout)
	}
	if c.Flags().Changed("keep") && o.keep < 1 {
		return misuse("--keep %d: must be 1 or more", o.keep)
	}
	if c.Flags().Changed("parent") {
		if _, err := images.ParseRef(o.Parent); err != nil {
			return &usageError{fmt.Errorf("--parent: %w", err)}
		}
	}
	if err := needRoot("checkpoint a container"); err != nil {
		return err
	}
	// The heap of a checkpoint grows to 4 MiB just while the container stands still,
	// and there the first garbage collection would begin, which takes 0.7 ms.
	debug.SetGCPercent(400)
	o.choice.GhostLimit = uint32(limit)
	o.Preflight, o.Store, o.Version, o.Command = o.choice, a.images(), version, os.Args
	if o.CRIU, err = a.criu(); err != nil {
		return err
	}
	box, err := a.open(c.Context(), name)
	if err != nil {
		return err
	}
	o.Progress = a.progress()
	o.Timeline = a.timeline("find container and CRIU")
	r, err := checkpoint.Dump(c.Context(), box, o.Options)
	o.Progress("")
	if err != nil {
		return err
	}
	if o.DryRun {
		return a.printDryRun(r)
	}
	out := &checkpointResult{Result: r}
	late := a.tidy(c.Context(), out, name, o)
	err = errors.Join(a.print(a.json, out, func() error {
		for _, f := range r.Findings.Findings {
			fmt.Fprintln(a.stderr, f)
		}
		fmt.Fprintln(a.stdout, r.Ref)
		a.printVerified("", r.Verified)
		if a.tableWanted() {
			return phaseTable(a.stderr, r.Phases, r.Frozen)
		}
		return nil
	}), late)
	if err == nil {
		err = differs(r.Verified)
	}
	return err
}

// checkpointResult is a checkpoint, and what was done with the store after it.
type checkpointResult struct {
	*checkpoint.Result
	Packed *packRow     `json:"packed,omitempty"`
	Pruned *pruneResult `json:"pruned,omitempty"`
}

// tidy packs the new image and removes old ones. The image is whole, whatever
// becomes of that.
func (a *app) tidy(ctx context.Context, r *checkpointResult, name string, o *checkpointOptions) error {
	var errs []error
	var err error
	defer o.Progress("")
	if o.pack {
		o.Progress("pack")
		if r.Packed, err = packImage(ctx, o.Store, r.Ref); err != nil {
			errs = append(errs, fmt.Errorf("checkpoint container %s: the image is whole, but not packed: %w", name, err))
		}
	}
	if o.keep > 0 {
		o.Progress("prune")
		if r.Pruned, err = a.prune(ctx, name, pruneOptions{keep: o.keep}); err != nil {
			errs = append(errs, fmt.Errorf("checkpoint container %s: the image is whole, but older ones are not removed: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (a *app) printDryRun(r *checkpoint.Result) error {
	blocked := false
	for _, f := range r.Findings.Findings {
		blocked = blocked || f.Blocks
	}
	err := a.print(a.json, r, func() error {
		for _, f := range r.Findings.Findings {
			fmt.Fprintln(a.stdout, f)
		}
		if !blocked {
			fmt.Fprintln(a.stdout, "nothing stands in the way")
		}
		return nil
	})
	if err == nil && blocked {
		err = &exitError{1}
	}
	return err
}

// tableWanted: a person is looking.
func (a *app) tableWanted() bool { return term.IsTerminal(int(a.stderr.Fd())) }

// progress returns a function that shows on a terminal what is being done.
func (a *app) progress() func(string) {
	if !a.tableWanted() {
		return func(string) {}
	}
	return func(phase string) {
		fmt.Fprint(a.stderr, "\r\x1b[K")
		if phase != "" {
			fmt.Fprint(a.stderr, phase, " …")
		}
	}
}

// phaseTable shows where the time went.
func phaseTable(out io.Writer, phases []checkpoint.Phase, frozen time.Duration) error {
	sort.SliceStable(phases, func(i, j int) bool { return phases[i].Start < phases[j].Start })
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "start ms\tms\t\t phase\t")
	for _, p := range phases {
		mark := ""
		if p.Frozen {
			mark = "frozen"
		}
		fmt.Fprintf(w, "%.1f\t%.1f\t%s\t %s\t\n", milliseconds(p.Start), milliseconds(p.Duration), mark, p.Name)
	}
	if frozen > 0 {
		fmt.Fprintf(w, "\t%.1f\t\t %s\t\n", milliseconds(frozen), "frozen in all")
	}
	return w.Flush()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
