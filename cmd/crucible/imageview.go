package main

import (
	"errors"

	"github.com/spf13/cobra"

	"crucible/images"
)

// viewed makes a command that looks into one image a command: it takes the
// image's name, prints data with --json, and keeps the image from being removed
// as long as it looks.
func (a *app) viewed(c *cobra.Command, view func(*images.Image) error) *cobra.Command {
	c.Args = exactArgs(1, "the name of an image")
	c.ValidArgsFunction = a.imageNames(false)
	c.RunE = func(_ *cobra.Command, args []string) error {
		i, err := a.images().Open(args[0])
		if err != nil {
			return err
		}
		hold, err := i.Hold()
		if err != nil {
			return err
		}
		return errors.Join(view(i), hold.Close())
	}
	a.jsonFlag(c)
	return c
}
