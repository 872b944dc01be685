package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// newHelpCommand is cobra's own, in the words of the others, and with an error
// for a command that does not exist.
func newHelpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show what a command does, and its flags",
		Long:  "Show what a command does, and its flags. `COMMAND --help` does the same.",

		DisableFlagsInUseLine: true,
		Example:               "  crucible help run\n  crucible help image list",
		ValidArgsFunction: func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			c, _, err := root.Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range c.Commands() {
				if sub.IsAvailableCommand() && strings.HasPrefix(sub.Name(), prefix) {
					names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return misuse("unknown command %q for %q", rest[0], c.CommandPath())
			}
			return c.Help()
		},
	}
}
