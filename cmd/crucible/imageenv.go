package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/images/inspect"
)

func newImageEnvCommand(a *app) *cobra.Command {
	var pid int
	c := a.viewed(&cobra.Command{
		Use:   "env [flags] NAME[@N]",
		Short: "Print the environment of a process in an image",
		Long: `Print the environment that a process in an image was started with, from the
image's memory. Variables that the program has set since then are elsewhere in its
memory.

Exit status: 0 success, 1 it is not in the image, 2 no such process, 3 no such image, 6
the image cannot be read.`,
		Example: "  crucible image env web\n  crucible image env --pid 7 web@1",
	}, func(i *images.Image) error { return runImageEnv(a, i, pid) })
	c.Flags().IntVar(&pid, "pid", 1, "the process, by its number in the container")
	return c
}

func runImageEnv(a *app, i *images.Image, pid int) error {
	c, err := inspect.Read(i)
	if err != nil {
		return err
	}
	p, err := processOf(c, i, pid)
	if err != nil {
		return err
	}
	if p.State == "zombie" {
		return misuse("image %s: process %d has ended, and has no memory", i.Ref(), pid)
	}
	variables, err := inspect.Environment(i, pid)
	if err != nil {
		return err
	}
	if variables == nil {
		variables = []string{}
	}
	return a.print(a.json, variables, func() error {
		for n := range variables {
			variables[n] = printable(variables[n])
		}
		_, err := fmt.Fprintln(a.stdout, strings.Join(variables, "\n"))
		return err
	})
}
