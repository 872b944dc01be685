package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crucible/checkpoint/criu"
	"crucible/images"
)

func newImageLogCommand(a *app) *cobra.Command {
	var level string
	c := &cobra.Command{
		Use:   "log [flags] NAME[@N]",
		Short: "Print what CRIU said while it wrote an image",
		Long: `Print the log that CRIU wrote during the checkpoint: with a time since it opened
the log, and on --level error or warning only lines that are at least as bad.
--json prints an object for each line.

The log ends where the image was whole. What CRIU said while it ended the tasks
is in the container's own log: see crucible explain.

Exit status: 0 success, 1 the image has no log, 3 no such image, 6 the image cannot
be read.`,
		Example:           "  crucible image log web\n  crucible image log --level warning web@1\n  crucible image log --json web@1 | jq -r 'select(.pid == 4711).text'",
		Args:              exactArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(false),
		RunE: func(_ *cobra.Command, args []string) error {
			least, ok := levelNames()[level]
			if !ok {
				return misuse("--level %q: must be error, warning or all", level)
			}
			return runImageLog(a, args[0], least)
		},
	}
	c.Flags().StringVar(&level, "level", "all", "error, warning or all")
	_ = c.RegisterFlagCompletionFunc("level", cobra.FixedCompletions([]string{"all", "error", "warning"}, cobra.ShellCompDirectiveNoFileComp))
	a.jsonFlag(c)
	return c
}

func levelNames() map[string]criu.Level {
	return map[string]criu.Level{"all": criu.Raw, "warning": criu.Warning, "error": criu.Fault}
}

// logLine is a line of CRIU's log.
type logLine struct {
	At     *time.Duration `json:"atNs,omitempty"` // nanoseconds since CRIU opened the log; a helper's words have none
	Level  string         `json:"level"`          // all: no level
	Pid    int            `json:"pid,omitempty"`
	Source string         `json:"source,omitempty"` // in CRIU's sources
	Text   string         `json:"text"`
}

func runImageLog(a *app, ref string, least criu.Level) error {
	i, err := a.images().Open(ref)
	if err != nil {
		return err
	}
	f, err := openImageLog(i)
	if err != nil {
		return err
	}
	defer f.Close()
	lines, err := criu.ParseLog(f)
	if err != nil {
		return fmt.Errorf("image %s: %s: %w", i.Ref(), images.Log, err)
	}
	lines = slices.DeleteFunc(lines, func(l criu.Line) bool { return l.Level < least })
	out := bufio.NewWriter(a.stdout)
	for _, l := range lines {
		if err := writeLogLine(out, l, a.json); err != nil {
			return err
		}
	}
	return out.Flush()
}

// openImageLog opens the log that an image holds.
func openImageLog(i *images.Image) (io.ReadCloser, error) {
	f, err := i.Open(images.Log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &noImageLogError{i.Ref()}
	}
	return f, err
}

// noImageLogError: an image without CRIU's log.
type noImageLogError struct{ ref string }

func (e *noImageLogError) Error() string { return "image " + e.ref + ": it has no log of CRIU's" }
func (e *noImageLogError) Hint() string {
	return "it was written by a crucible that kept none: a new checkpoint has one"
}

func writeLogLine(out io.Writer, l criu.Line, asJSON bool) error {
	if asJSON {
		one := logLine{Pid: l.Pid, Source: l.Source, Text: l.Text}
		for name, level := range levelNames() {
			if level == l.Level {
				one.Level = name
			}
		}
		if l.Timed {
			one.At = &l.At
		}
		return json.NewEncoder(out).Encode(one)
	}
	text := printable(strings.ReplaceAll(l.Text, "\t", " "))
	switch l.Level {
	case criu.Fault:
		text = "error: " + text
	case criu.Warning:
		text = "warning: " + text
	}
	if l.Source != "" {
		text += " [" + printable(l.Source) + "]"
	}
	if l.Pid != 0 {
		text = fmt.Sprintf("%d: %s", l.Pid, text)
	}
	at := strings.Repeat(" ", 10)
	if l.Timed {
		at = fmt.Sprintf("%10.6f", l.At.Seconds())
	}
	_, err := fmt.Fprintf(out, "%s  %s\n", at, text)
	return err
}
