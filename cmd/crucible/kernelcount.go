package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"crucible/experiments/conformance"
	"crucible/experiments/lab"
)

// countFlag asks for instructions in place of seconds.
type countFlag struct{ count bool }

func (f *countFlag) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.count, "count", false, "count the instructions that checkpoints and restores take")
}

// countHelp is what the long help of a command with the flag says of it.
const countHelp = `With --count the machines are emulated so that they execute the same
instructions each time, on any host and under any load, and these are counted: of
the kernel, by function, and of programs. Each case has a machine of its own, which
runs it once to warm up and then some rounds; what is shown is their mean, with its
standard error. That takes 20 s or so for a case. The counting is done by a plug-in
for QEMU, which needs a C compiler once; without it virtual time is shown, where an
instruction is a nanosecond but waiting counts, too.`

// options has a run count, if the flag says so.
func (f *countFlag) options(ctx context.Context, a *app, o *conformance.Options) error {
	if !f.count {
		return nil
	}
	if o.CPUs > 1 {
		return misuse("--count: the machines must have one processor, not %d", o.CPUs)
	}
	store, err := a.archive()
	if err != nil {
		return err
	}
	progress := a.progress()
	progress("building the plug-in that counts")
	plugin, err := lab.BuildPlugin(ctx, o.QEMU, filepath.Join(store.Dir, "plugin"))
	progress("")
	var fault *lab.Fault
	if errors.As(err, &fault) {
		fmt.Fprintf(a.stderr, "counting virtual time only: %v\n", fault)
		if hint := fault.Hint(); hint != "" {
			fmt.Fprintln(a.stderr, "hint:", hint)
		}
	} else if err != nil {
		return err
	}
	o.QEMU.KVM = false
	o.Count = &conformance.Count{Seed: 1, Plugin: plugin}
	return nil
}
