package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// printUsage prints how a command is called, its flags, and the commands below it.
// It is in the place of cobra's own, which names Go's types.
func printUsage(c *cobra.Command) error {
	w := c.OutOrStderr()
	fmt.Fprintln(w, "Usage:")
	if c.Runnable() && !c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "  %s\n", c.UseLine())
	} else {
		fmt.Fprintf(w, "  %s COMMAND\n", c.CommandPath())
	}
	if len(c.Aliases) > 0 {
		fmt.Fprintf(w, "\nAlso called:\n  %s\n", strings.Join(c.Aliases, ", "))
	}
	if c.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", c.Example)
	}
	listCommands(w, c)
	listFlags(w, "Flags:", c.LocalFlags())
	listFlags(w, "Flags of every command:", c.InheritedFlags())
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n`%s COMMAND --help` shows more about a command.\n", c.CommandPath())
	}
	return nil
}

func listCommands(w io.Writer, c *cobra.Command) {
	groups := c.Groups()
	if len(groups) == 0 && c.HasAvailableSubCommands() {
		groups = []*cobra.Group{{Title: "Commands:"}}
	}
	width := 0
	for _, sub := range c.Commands() {
		width = max(width, len(sub.Name()))
	}
	for _, g := range groups {
		fmt.Fprintf(w, "\n%s\n", g.Title)
		for _, sub := range c.Commands() {
			// help counts as none that is available.
			if sub.GroupID == g.ID && (sub.IsAvailableCommand() || sub.Name() == "help") {
				fmt.Fprintf(w, "  %-*s  %s\n", width, sub.Name(), sub.Short)
			}
		}
	}
}

func listFlags(w io.Writer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if f.DefValue == "[]" || f.DefValue == "-1" { // stands for "not given"
			f.DefValue = ""
		}
		f.Value = worded{f.Value}
	})
	fmt.Fprintf(w, "\n%s\n%s", title, flags.FlagUsages())
}

// worded is a flag's value whose type is what a user would call it.
type worded struct{ pflag.Value }

func (v worded) Type() string {
	switch t := v.Value.Type(); t {
	case "bool":
		return t
	case "int", "int64", "float64":
		return "N"
	case "duration":
		return "TIME"
	case "stringArray": // may be given several times
		return "VALUE..."
	}
	return "VALUE"
}
