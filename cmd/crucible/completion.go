package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"crucible/container/confine"
	"crucible/images"
)

// completing tells whether a shell asks for completions, by cobra's hidden command.
func completing(args []string) bool {
	return len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd)
}

func newCompletionCommand(root *cobra.Command) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a script that completes commands, flags and names in a shell",
		Long: `Print a script that completes commands, flags and names in a shell: bash, zsh or
fish. bash needs the package bash-completion for it.`,
		Example: `  source <(crucible completion bash)
  crucible completion bash > /etc/bash_completion.d/crucible
  crucible completion zsh > "${fpath[1]}/_crucible"
  crucible completion fish > ~/.config/fish/completions/crucible.fish`,
		DisableFlagsInUseLine: true,
		Args:                  exactArgs(1, "a shell: bash, zsh or fish"),
		ValidArgsFunction:     cobra.FixedCompletions(shells, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(c *cobra.Command, args []string) error {
			out := c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return misuse("there are no completions for %q: name bash, zsh or fish", args[0])
		},
	}
}

// completeFlags says what the values of flags are completed with, by the
// flag's name: the same name means the same in all commands.
func completeFlags(c *cobra.Command) {
	for _, flags := range []*pflag.FlagSet{c.PersistentFlags(), c.Flags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() != "bool" {
				_ = c.RegisterFlagCompletionFunc(f.Name, flagValues(f.Name)) // who has one of its own keeps it
			}
		})
	}
	for _, sub := range c.Commands() {
		completeFlags(sub)
	}
}

func flagValues(name string) cobra.CompletionFunc {
	values, directive := []string(nil), cobra.ShellCompDirectiveNoFileComp
	switch name {
	case "root", "bundle", "rootfs", "work-dir", "results":
		directive = cobra.ShellCompDirectiveFilterDirs
	case "criu", "seccomp", "device", "volume", "kernel", "kernels", "with", "html", "svg", "output", "encrypt", "sign", "identity", "verify-key":
		directive = cobra.ShellCompDirectiveDefault
	case "cgroup", "cgroups":
		values = []string{"v1", "hybrid", "v2"}
	case "signal":
		values = signalNames()
	case "userns":
		values = []string{"auto"}
	case "time-offset":
		values, directive = []string{"monotonic=", "boottime="}, directive|cobra.ShellCompDirectiveNoSpace
	case "ulimit":
		for _, limit := range strings.Fields("as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack") {
			values = append(values, limit+"=")
		}
		directive |= cobra.ShellCompDirectiveNoSpace
	case "cap-add", "cap-drop":
		values = []string{"ALL"}
		for _, c := range confine.CapabilityNames() {
			values = append(values, strings.TrimPrefix(c, "CAP_"))
		}
	}
	return cobra.FixedCompletions(values, directive)
}

func signalNames() []string {
	var names []string
	for n := unix.Signal(1); n < 32; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, strings.TrimPrefix(name, "SIG"))
		}
	}
	return names
}

// containerNames completes the names of containers, for all arguments or the first only.
func (a *app) containerNames(many bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && !many {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, _ := a.root().List()
		var names []string
		for _, c := range all {
			names = append(names, c.Name)
		}
		return fitting(names, args, prefix), cobra.ShellCompDirectiveNoFileComp
	}
}

// imageNames completes NAME and NAME@N, for all arguments or the first only.
func (a *app) imageNames(many bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && !many {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, _ := a.images().Names()
		all := slices.Clone(names)
		for _, name := range names {
			numbers, _ := a.images().Numbers(name)
			for _, n := range numbers {
				all = append(all, images.Ref{Name: name, Number: n}.String())
			}
		}
		return fitting(all, args, prefix), cobra.ShellCompDirectiveNoFileComp
	}
}

// imageOwners completes the names of containers that have images.
func (a *app) imageOwners(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, _ := a.images().Names()
	return fitting(names, args, prefix), cobra.ShellCompDirectiveNoFileComp
}

// fitting are the words that begin like that and are not arguments yet.
func fitting(words, args []string, prefix string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, prefix) || slices.Contains(args, w) })
}
