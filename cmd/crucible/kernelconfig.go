package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"crucible/experiments/lab/kernel"
)

func newKernelConfigCommand(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "config [flags] FILE|DIR|debian:VERSION",
		Short: "Say what a kernel's configuration lacks for checkpoint and restore",
		Long: `Compare a kernel's configuration with what checkpoint and restore, crucible's
containers and the lab's machines need, and say what to switch on. The argument
is a .config, a /boot/config-RELEASE, the directory of a build, debian:VERSION,
or a bzImage that carries its configuration (CONFIG_IKCONFIG).

Exit status: 0 nothing required is missing, 1 something is, 125 there is no
configuration to be read.`,
		Example: "  crucible kernel config .config\n  crucible kernel config --all arch/x86/boot/bzImage",
		Args:    exactArgs(1, "a .config, a bzImage, or the directory of a build"),
		RunE: func(c *cobra.Command, args []string) error {
			path := args[0]
			if version, found := strings.CutPrefix(path, "debian:"); found {
				store, err := a.archive()
				if err != nil {
					return err
				}
				k, err := store.Kernel(c.Context(), version)
				store.Progress("")
				if err != nil {
					return err
				}
				path = k.Config
			}
			config, err := kernel.ReadConfig(path)
			if err != nil {
				return err
			}
			return a.printRequirements(kernel.Check(config), all)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "show also what is there")
	a.jsonFlag(c)
	return c
}

func (a *app) printRequirements(rows []kernel.Row, all bool) error {
	lacking, shown := 0, []kernel.Row{}
	for _, r := range rows {
		if !r.OK && r.Level == kernel.Required {
			lacking++
		}
		if all || !r.OK {
			shown = append(shown, r)
		}
	}
	err := a.print(a.json, shown, func() error {
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		if len(shown) > 0 {
			fmt.Fprintln(w, "OPTION\tIS\t\tFOR\tSWITCH ON")
		}
		for _, r := range shown {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Option, r.State, r.Level, r.For, r.Remedy)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		switch {
		case lacking > 0:
			fmt.Fprintf(a.stdout, "required options that are missing: %d\n", lacking)
		default:
			fmt.Fprintln(a.stdout, "nothing required is missing")
		}
		return nil
	})
	if err == nil && lacking > 0 {
		err = &exitError{1}
	}
	return err
}
