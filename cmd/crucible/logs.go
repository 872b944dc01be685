package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"crucible/container"
)

type logsOptions struct {
	follow, timestamps bool
	tail               int
}

func newLogsCommand(a *app) *cobra.Command {
	var o logsOptions
	c := &cobra.Command{
		Use:   "logs [flags] NAME",
		Short: "Print what a container has written",
		Long: `Print what a container has written to its standard output and error, to ours.

Exit status: 0 success, 3 no such container.`,
		Example:           "  crucible logs -f --tail 10 web",
		Args:              exactArgs(1, "the name of a container"),
		ValidArgsFunction: a.containerNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			box, err := a.open(c.Context(), args[0])
			if err != nil {
				return err
			}
			return runLogs(c.Context(), a, box, o)
		},
	}
	c.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until the container stops")
	c.Flags().BoolVarP(&o.timestamps, "timestamps", "t", false, "print the time of each line")
	c.Flags().IntVar(&o.tail, "tail", -1, "begin with the last N lines")
	a.jsonFlag(c)
	return c
}

func runLogs(ctx context.Context, a *app, box *container.Container, o logsOptions) error {
	f, err := openLog(box, o.follow)
	if errors.Is(err, os.ErrNotExist) {
		return nil // nothing was ever written
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	var lines []container.LogLine
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if _, err := f.Seek(-int64(len(line)), io.SeekCurrent); err != nil {
				return err
			}
			break
		}
		if l, ok := container.ParseLogLine(line[:len(line)-1]); ok {
			lines = append(lines, l)
		}
	}
	if o.tail >= 0 && len(lines) > o.tail {
		lines = lines[len(lines)-o.tail:]
	}
	for _, l := range lines {
		if err := a.logLine(l, o); err != nil {
			return err
		}
	}
	if !o.follow {
		return nil
	}
	return box.FollowLog(ctx, f, func(l container.LogLine) error { return a.logLine(l, o) })
}

// openLog opens a container's log. Its monitor makes it with the first output;
// who waits for that makes it before.
func openLog(box *container.Container, follow bool) (*os.File, error) {
	f, err := os.Open(box.Log())
	if !follow || !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	if status, statusErr := box.Status(); statusErr != nil || status == container.Stopped {
		return nil, errors.Join(err, statusErr)
	}
	return os.OpenFile(box.Log(), os.O_RDONLY|os.O_CREATE, 0o600)
}

func (a *app) logLine(l container.LogLine, o logsOptions) error {
	if a.json {
		return json.NewEncoder(a.stdout).Encode(l)
	}
	out := a.stdout
	if l.Stream == "stderr" {
		out = a.stderr
	}
	text := l.Text
	if !l.Part {
		text += "\n"
	}
	if o.timestamps {
		text = l.Time + " " + text
	}
	_, err := fmt.Fprint(out, text)
	return err
}
