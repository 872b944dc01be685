package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"crucible/checkpoint/timeline"
	"crucible/images"
	"crucible/proto/imagepb"
)

// drawing says how a timeline is shown.
type drawing struct {
	html, perfetto string // a file, or - for standard output
	all            bool
}

func (d *drawing) flags(a *app, c *cobra.Command) {
	c.Flags().BoolVar(&d.all, "all", false, "show also what is too short to be seen, and the parts of many tasks")
	c.Flags().StringVar(&d.html, "html", "", "write one page to this file instead, - for standard output")
	c.Flags().StringVar(&d.perfetto, "perfetto", "", "write a trace for the Perfetto UI (ui.perfetto.dev) to this file, - for standard output")
}

// check refuses two forms at once.
func (d *drawing) check(a *app) error {
	if d.html != "" && d.perfetto != "" || a.json && d.html+d.perfetto != "" {
		return misuse("--html, --perfetto and --json: only one of them")
	}
	return nil
}

func newImageTimelineCommand(a *app) *cobra.Command {
	var d drawing
	c := &cobra.Command{
		Use:   "timeline [flags] NAME[@N]",
		Short: "Show where the time of a checkpoint went",
		Long: `Show where the time of the checkpoint went that wrote an image: the steps of
crucible, what ran beside them, and from CRIU's log what CRIU did by itself and to
each task, all on one clock. It ends where the image was whole; crucible timeline
also knows what came after that, and restores.

Exit status: 0 success, 3 no such image, 6 the image cannot be read.`,
		Example:           "  crucible image timeline web\n  crucible image timeline --html web.html web@1\n  crucible image timeline --perfetto - web > web.trace.json",
		Args:              exactArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(false),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := d.check(a); err != nil {
				return err
			}
			i, err := a.images().Open(args[0])
			if err != nil {
				return err
			}
			t, err := imageTrace(i)
			if err != nil {
				return err
			}
			return a.draw(t, d)
		},
	}
	a.jsonFlag(c)
	d.flags(a, c)
	return c
}

// imageTrace joins what an image says of its checkpoint.
func imageTrace(i *images.Image) (*timeline.Trace, error) {
	var line imagepb.Timeline
	if err := i.Get(images.Timeline, &line); err != nil {
		return nil, err
	}
	o := timeline.Options{Title: "checkpoint " + i.Ref(), PageSize: uint64(i.Manifest.GetWriter().GetPageSize())}
	f, err := i.Open(images.Log)
	if errors.Is(err, fs.ErrNotExist) {
		return timeline.Join(&line, nil, o)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := timeline.Join(&line, f, o)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	return t, nil
}

// draw shows a trace in the form that was asked for.
func (a *app) draw(t *timeline.Trace, d drawing) error {
	switch {
	case d.html != "":
		return a.drawTo(d.html, t.WriteHTML)
	case d.perfetto != "":
		return a.drawTo(d.perfetto, t.WritePerfetto)
	}
	return a.print(a.json, t, func() error {
		return t.WriteText(a.stdout, timeline.TextOptions{Width: a.width(), Colours: a.colours(), All: d.all})
	})
}

// width is that of the terminal to which is written, or 0.
func (a *app) width() int {
	w, _, err := term.GetSize(int(a.stdout.Fd()))
	if err != nil {
		return 0
	}
	return w
}

// drawTo writes a whole file, or nothing of it.
func (a *app) drawTo(path string, write func(io.Writer) error) error {
	if path == "-" {
		path = ""
	}
	err := a.writeTo(path, write)
	var failed *os.PathError
	if errors.As(err, &failed) && path != "" {
		return &outputError{path, failed.Err}
	}
	return err
}

// outputError: a file that was asked for cannot be written.
type outputError struct {
	path string
	err  error
}

func (e *outputError) Error() string { return fmt.Sprintf("write %s: %v", e.path, e.err) }
func (e *outputError) Unwrap() error { return e.err }
func (e *outputError) Hint() string {
	return "the directory must exist, be writable and have room; - is standard output"
}
