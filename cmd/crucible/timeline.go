package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"crucible/checkpoint"
	"crucible/checkpoint/timeline"
	"crucible/container"
	"crucible/images"
	"crucible/proto/frame"
	"crucible/proto/imagepb"
	"crucible/restore"
)

func newTimelineCommand(a *app) *cobra.Command {
	var d drawing
	var of string
	c := &cobra.Command{
		Use:   "timeline [flags] NAME",
		Short: "Show where the time of a container's last checkpoint or restore went",
		Long: `Show where the time of a container's last restore or checkpoint went, whichever was
later, or the one that --of names: the steps of crucible and of the container's monitor,
what ran beside them, and from CRIU's log what CRIU did by itself and to each task, all
on one clock.

A restore of processes that share much memory, as after a fork, is logged by CRIU in
less detail, because it would take longer: crucible restore --trace has all of it.

Exit status: 0 success, 1 there was no checkpoint or restore, 3 no such container.`,
		Example:           "  crucible timeline web\n  crucible timeline --of checkpoint web\n  crucible timeline --html restore.html web",
		Args:              exactArgs(1, "the name of a container"),
		ValidArgsFunction: a.containerNames(false),
		RunE: func(_ *cobra.Command, args []string) error {
			if of != "" && of != opCheckpoint && of != opRestore {
				return misuse("--of %q: must be checkpoint or restore", of)
			}
			if err := d.check(a); err != nil {
				return err
			}
			box, err := a.root().Open(args[0])
			if err != nil {
				return err
			}
			t, err := a.containerTrace(box, of)
			if err != nil {
				return err
			}
			return a.draw(t, d)
		},
	}
	c.Flags().StringVar(&of, "of", "", "checkpoint or restore (default: the later one)")
	_ = c.RegisterFlagCompletionFunc("of", cobra.FixedCompletions([]string{opCheckpoint, opRestore}, cobra.ShellCompDirectiveNoFileComp))
	a.jsonFlag(c)
	d.flags(a, c)
	return c
}

const (
	opCheckpoint = "checkpoint"
	opRestore    = "restore"
)

// noTimelineError: a container that was neither checkpointed nor restored.
type noTimelineError struct{ name, of string }

func (e *noTimelineError) Error() string {
	what := map[string]string{"": "neither checkpointed nor restored", opCheckpoint: "not checkpointed", opRestore: "not restored"}[e.of]
	return fmt.Sprintf("timeline of container %s: it was %s", e.name, what)
}

func (e *noTimelineError) Hint() string {
	return "`crucible image timeline` shows the one of a checkpoint that wrote an image"
}

// containerTrace reads the later one of a container's timelines, or the one that
// was asked for.
func (a *app) containerTrace(box *container.Container, of string) (*timeline.Trace, error) {
	var line *imagepb.Timeline
	var op, logFile string
	for _, x := range []struct{ op, file, log string }{
		{opCheckpoint, checkpoint.TimelineFile, checkpoint.LogFile}, {opRestore, restore.TimelineFile, restore.LogFile},
	} {
		if of != "" && of != x.op {
			continue
		}
		one, err := readTimeline(filepath.Join(box.Root.Logs(box.Name), x.file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("timeline of container %s: %w", box.Name, err)
		}
		if line == nil || one.StartedUnixNs > line.StartedUnixNs {
			line, op, logFile = one, x.op, x.log
		}
	}
	if line == nil {
		return nil, &noTimelineError{box.Name, of}
	}
	o := timeline.Options{Title: op + " " + box.Name, PageSize: uint64(os.Getpagesize()), Tasks: a.tasks(box, op)}
	var log io.Reader
	f, err := os.Open(filepath.Join(box.Root.Logs(box.Name), logFile))
	if err == nil {
		defer f.Close()
		log = f
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return timeline.Join(line, log, o)
}

// tasks are the names of a restore's tasks, which its log does not tell.
func (a *app) tasks(box *container.Container, op string) map[int]string {
	i, err := a.images().Open(box.State.Image)
	if err != nil || op != opRestore {
		return nil // the image may be gone
	}
	var all imagepb.Processes
	if i.Get(images.Processes, &all) != nil {
		return nil
	}
	names := map[int]string{}
	for _, p := range all.Processes {
		names[int(p.Pid)] = p.Comm
	}
	return names
}

// maxTimeline is far more than one has.
const maxTimeline = 16 << 20

func readTimeline(path string) (*imagepb.Timeline, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTimeline))
	if err != nil {
		return nil, err
	}
	var line imagepb.Timeline
	if err := frame.Decode(data, &line); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &line, nil
}
