package main

import (
	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/images/inspect"
)

func newImageFdsCommand(a *app) *cobra.Command {
	var pid int
	c := a.viewed(&cobra.Command{
		Use:   "fds [flags] NAME[@N]",
		Short: "List what the processes in an image have open",
		Long: `List what the processes in an image have open: descriptor, access (r, w, rw), kind,
and what it is: a path, or who has the other end as PID/FD, how much waits in it, when
a timer goes off, what an epoll instance waits for. cwd, root and exe are the
working directory, the root and the program.

Exit status: 0 success, 2 no such process, 3 no such image, 6 the image cannot be read.`,
		Example: "  crucible image fds web\n  crucible image fds --pid 1 web@2\n  crucible image fds --json web | jq '.[].descriptors[].file.path'",
	}, func(i *images.Image) error { return runImageFds(a, i, pid) })
	c.Flags().IntVar(&pid, "pid", 0, "only of this process, by its number in the container (0: all)")
	return c
}

// opened is a process in `crucible image fds --json`.
type opened struct {
	Pid         int                  `json:"pid"`
	Comm        string               `json:"comm"`
	Exe         string               `json:"exe,omitempty"`
	Directory   string               `json:"cwd,omitempty"`
	Root        string               `json:"root,omitempty"`
	Descriptors []inspect.Descriptor `json:"descriptors"`
}

func runImageFds(a *app, i *images.Image, pid int) error {
	c, err := inspect.Read(i)
	if err != nil {
		return err
	}
	processes := c.Processes
	if pid != 0 {
		p, err := processOf(c, i, pid)
		if err != nil {
			return err
		}
		processes = []*inspect.Process{p}
	}
	rows := []opened{}
	for _, p := range processes {
		rows = append(rows, opened{p.Pid, p.Comm, p.Exe, p.Directory, p.Root, append([]inspect.Descriptor{}, p.Descriptors...)})
	}
	return a.print(a.json, rows, func() error {
		t := table{{"PID", "FD", "ACCESS", "KIND", "NAME"}}
		for _, p := range rows {
			for _, place := range [][2]string{{"exe", p.Exe}, {"cwd", p.Directory}, {"root", p.Root}} {
				if place[1] != "" {
					t.add(p.Pid, place[0], "", "", place[1])
				}
			}
			for _, d := range p.Descriptors {
				t.add(p.Pid, d.FD, d.File.Access, d.File.Kind, d.File.Name())
			}
		}
		return a.printTable(t)
	})
}

// processOf finds a process that the command line names.
func processOf(c *inspect.Contents, i *images.Image, pid int) (*inspect.Process, error) {
	if p := c.Process(pid); p != nil {
		return p, nil
	}
	return nil, misuse("image %s: it has no process %d: see `crucible image ps %s`", i.Ref(), pid, i.Ref())
}
