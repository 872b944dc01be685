package main

import (
	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/images/inspect"
)

func newImagePsCommand(a *app) *cobra.Command {
	return a.viewed(&cobra.Command{
		Use:   "ps [flags] NAME[@N]",
		Short: "List the processes in an image",
		Long: `List the processes in an image by their numbers in the container: who they run as,
their threads, how much of their memory is in the image and those that it builds
on, and their command lines, which are read from that memory.

Exit status: 0 success, 3 no such image, 6 the image cannot be read.`,
		Example: "  crucible image ps web\n  crucible image ps --json web@1 | jq '.[].threads'",
	}, func(i *images.Image) error {
		c, err := inspect.Read(i)
		if err != nil {
			return err
		}
		return a.print(a.json, c.Processes, func() error {
			t := table{{"PID", "PPID", "UID", "STATE", "THREADS", "MEMORY", "COMMAND"}}
			for _, p := range c.Processes {
				command := p.Command()
				if p.Ended != "" {
					command += " (" + p.Ended + ")"
				}
				t.add(p.Pid, p.Parent, p.UID, p.State, len(p.Threads), formatSize(int64(p.Memory)), command)
			}
			return a.printTable(t)
		})
	})
}
