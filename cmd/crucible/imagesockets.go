package main

import (
	"strings"

	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/images/inspect"
)

func newImageSocketsCommand(a *app) *cobra.Command {
	return a.viewed(&cobra.Command{
		Use:   "sockets [flags] NAME[@N]",
		Short: "List the sockets in an image, with both ends",
		Long: `List the sockets in an image: addresses, state, the bytes that nobody has read,
and who has it as PID/FD. Where the other end is in the container, too, OTHER END says
who has that. A unix socket's name in the abstract namespace begins with @.

Exit status: 0 success, 3 no such image, 6 the image cannot be read.`,
		Example: "  crucible image sockets web\n  crucible image sockets --json web@1",
	}, func(i *images.Image) error {
		c, err := inspect.Read(i)
		if err != nil {
			return err
		}
		files := []*inspect.File{}
		for _, f := range c.Files {
			if f.Socket != nil {
				files = append(files, f)
			}
		}
		return a.print(a.json, files, func() error {
			t := table{{"KIND", "LOCAL", "REMOTE", "STATE", "UNREAD", "HELD BY", "OTHER END"}}
			for _, f := range files {
				s := f.Socket
				t.add(s.Kind(), dash(s.Local), dash(s.Remote), dash(s.State), s.Received, dash(holderText(f.Holders)), dash(holderText(s.Peers)))
			}
			return a.printTable(t)
		})
	})
}

func holderText(all []inspect.Holder) string {
	var words []string
	for _, h := range all {
		words = append(words, h.String())
	}
	return strings.Join(words, " ")
}
