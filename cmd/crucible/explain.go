package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"crucible/checkpoint/criu"
	"crucible/container/name"
	"crucible/images"
)

// explained is a log in `crucible explain`.
type explained struct {
	Log    string   `json:"log"`
	Cause  string   `json:"cause,omitempty"` // none: there is no error in it
	Kind   string   `json:"kind,omitempty"`  // none: the cause is not a known one
	Object string   `json:"object,omitempty"`
	Pid    int      `json:"pid,omitempty"`  // as CRIU numbers it
	Task   string   `json:"task,omitempty"` // what that task calls itself
	Errno  string   `json:"errno,omitempty"`
	Source string   `json:"source,omitempty"` // in CRIU's sources
	Remedy string   `json:"remedy,omitempty"`
	Lines  []string `json:"lines,omitempty"` // the most telling ones, if the cause is not known
}

func newExplainCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [flags] LOG|DIRECTORY|NAME[@N]...",
		Short: "Say what a log of CRIU's means: cause, object, remedy",
		Long: `Read logs of CRIU's, whoever ran it, and say of each what went wrong: the line that
all other errors go back to, what it is about, and what to do. Of a cause that is
not known it shows the lines that tell most.

A LOG is a file, or - for standard input; of a DIRECTORY it is every *.log in it;
of a container NAME those of its last checkpoint and restore; of an image NAME@N
the one of the checkpoint that wrote it, and of a NAME without a container the one
of its newest image.

Exit status: 0 success, 1 no log to read, 3 no such container or image, 6 the image
cannot be read.`,
		Example: "  crucible explain web\n  crucible explain /var/lib/containers/storage/overlay-containers/*/userdata/dump.log\n  runc checkpoint --work-path /tmp/w web || crucible explain /tmp/w",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return misuse("nothing to explain: name a log, a directory with logs, a container or an image")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.explain(args) },
		ValidArgsFunction: func(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			names, _ := a.containerNames(true)(c, args, prefix)
			images, _ := a.imageNames(true)(c, args, prefix)
			return append(names, images...), cobra.ShellCompDirectiveDefault // and files
		},
	}
	a.jsonFlag(c)
	return c
}

func (a *app) explain(args []string) error {
	all := []explained{}
	for _, arg := range args {
		logs, err := a.logsOf(arg)
		if err != nil {
			return err
		}
		for _, log := range logs {
			one, err := a.explainLog(log)
			if err != nil {
				return err
			}
			all = append(all, one)
		}
	}
	return a.print(a.json, all, func() error {
		for _, one := range all {
			one.write(a.stdout)
		}
		return nil
	})
}

// logsOf finds the logs that an argument stands for.
func (a *app) logsOf(arg string) ([]string, error) {
	dir := arg
	info, err := os.Stat(arg)
	switch {
	case arg == "-":
		return []string{arg}, nil
	case err == nil && !info.IsDir():
		return []string{arg}, nil
	case err != nil && isNumbered(arg):
		return a.logOfImage(arg)
	case err != nil && name.ValidName(arg) == nil:
		box, notFound := a.root().Open(arg)
		if logs, err := a.logOfImage(arg); notFound != nil && err == nil {
			return logs, nil // the container is gone, its images are there
		}
		if notFound != nil {
			return nil, notFound
		}
		dir = a.root().Logs(box.Name)
	case err != nil:
		return nil, &noLogError{arg, errors.Unwrap(err)}
	}
	logs, err := fs.Glob(os.DirFS(dir), "*.log")
	if err == nil && len(logs) == 0 {
		err = errors.New("there is no *.log in " + dir)
	}
	if err != nil {
		return nil, &noLogError{arg, err}
	}
	for i := range logs {
		logs[i] = filepath.Join(dir, logs[i])
	}
	return logs, nil
}

// isNumbered tells NAME@N, which can only be an image.
func isNumbered(arg string) bool {
	ref, err := images.ParseRef(arg)
	return err == nil && ref.Number > 0
}

func (a *app) logOfImage(ref string) ([]string, error) {
	i, err := a.images().Open(ref)
	if err != nil {
		return nil, err
	}
	return []string{filepath.Join(i.Dir(), images.Log)}, nil
}

// noLogError: there is nothing to explain where it was looked for.
type noLogError struct {
	what string
	err  error
}

func (e *noLogError) Error() string { return fmt.Sprintf("explain %s: %v", e.what, e.err) }
func (e *noLogError) Unwrap() error { return e.err }
func (e *noLogError) Hint() string {
	return "name a log that CRIU wrote, a directory with such logs, or a container or an image that was checkpointed or restored"
}

// maxExplained is how much of a log is read, from its end: there the causes are.
const maxExplained = 64 << 20

func (a *app) explainLog(path string) (explained, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return explained{}, &noLogError{path, errors.Unwrap(err)}
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Size() > maxExplained {
			_, _ = f.Seek(-maxExplained, io.SeekEnd)
		}
		in = f
	}
	e, err := criu.Explain(in)
	if err != nil {
		return explained{}, &noLogError{path, err}
	}
	one := explained{Log: path, Cause: e.Text, Kind: e.Kind, Object: e.Object, Pid: e.Pid, Task: e.Task, Source: e.Source, Remedy: e.Remedy}
	if e.Errno != 0 {
		one.Errno = unix.ErrnoName(e.Errno)
	}
	for _, line := range e.Telling {
		text := line.Text
		if line.Source != "" {
			text = line.Source + ": " + text
		}
		one.Lines = append(one.Lines, text)
	}
	return one, nil
}

func (e explained) write(w io.Writer) {
	fmt.Fprint(w, printable(e.Log), ": ")
	if e.Cause == "" {
		fmt.Fprintln(w, "there is no error in it")
		return
	}
	fmt.Fprintln(w, printable(e.Cause))
	row := func(label, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-7s %s\n", label, printable(text))
		}
	}
	if e.Pid != 0 {
		row("task", criu.About(e.Pid, e.Task, ""))
	}
	row("object", e.Object)
	row("errno", e.Errno)
	row("source", e.Source)
	row("remedy", e.Remedy)
	if e.Kind != "" {
		return
	}
	fmt.Fprintln(w, "  This is not a cause that crucible knows. What tells most:")
	for _, line := range e.Lines {
		fmt.Fprintln(w, "   ", printable(line))
	}
}
