package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"crucible/images/inspect/core"
)

func newImageCoreCommand(a *app) *cobra.Command {
	pid, name := 0, ""
	c := &cobra.Command{
		Use:   "core [flags] --pid PID -o FILE NAME[@N]",
		Short: "Make a core file of a process in an image, for a debugger",
		Long: `Make an ELF core file of a process in an image, as if it had crashed where the
checkpoint froze it: gdb shows where each thread stood, and what was in its memory.
The code of the program and its libraries is not in an image: the debugger needs
their files, with "set sysroot" where they are not this machine's.

Exit status: 0 success, 1 failure, 3 no such image or process, 6 the image cannot be
read.`,
		Example:           "  crucible image core --pid 1 -o core web && gdb -ex 'thread apply all bt' /usr/bin/python3 core",
		Args:              exactArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			return runImageCore(c.Context(), a, args[0], pidFlag(c, pid), name)
		},
	}
	c.Flags().IntVarP(&pid, "pid", "p", 0, "the process, as the container numbers it")
	c.Flags().StringVarP(&name, "output", "o", "", "the file to write")
	a.jsonFlag(c)
	return c
}

// coreRow is the answer of `crucible image core --json`.
type coreRow struct {
	Image   string `json:"image"`
	Pid     int    `json:"pid"`
	Threads []int  `json:"threads"`
	Output  string `json:"output"`
	Size    int64  `json:"size"` // bytes, with holes
}

func runImageCore(ctx context.Context, a *app, ref string, pid *int, name string) error {
	if pid == nil || name == "" || name == "-" {
		return misuse("say which process, with --pid, and which file to write, with -o")
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return misuse("--output %s: a core file has holes, and so must be a file", name)
	}
	m, err := a.imageMemory(ref)
	if err != nil {
		return err
	}
	defer m.Close()
	p, err := core.Load(m.Memory, *pid)
	if err != nil {
		return err
	}
	out, err := a.output(ctx, name)
	if err != nil {
		return err
	}
	if err := out.finish(writeError(p.Write(ctx, out.file))); err != nil {
		return err
	}
	row := coreRow{Image: m.image.Ref(), Pid: *pid, Output: name}
	for _, t := range p.Threads {
		row.Threads = append(row.Threads, t.ID)
	}
	if info, err := os.Stat(name); err == nil {
		row.Size = info.Size()
	}
	return a.print(a.json, row, func() error {
		_, err := fmt.Fprintln(a.stdout, name)
		return err
	})
}

// writeError gives an error about the file that is written its hint.
func writeError(err error) error {
	var path *os.PathError
	if errors.As(err, &path) && path.Op == "write" {
		return &fileError{err, writeHint}
	}
	return err
}
