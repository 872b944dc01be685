package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"crucible/checkpoint"
	"crucible/checkpoint/criu"
	"crucible/container"
	"crucible/images"
)

// app is what all commands share.
type app struct {
	stdin, stdout, stderr *os.File
	interrupts            *interrupts

	rootDir  string
	criuPath string
	json     bool      // of the command that runs, for the form of its error
	born     time.Time // when the process was made, for the commands with a timeline
	began    time.Time // main
}

// Command groups of the help text.
const (
	groupRun   = "run"
	groupLook  = "look"
	groupCR    = "cr"
	groupLab   = "lab"
	groupOther = "other"
)

func (a *app) run(ctx context.Context, args []string) int {
	root := a.command(args)
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	c, err := root.ExecuteContextC(ctx)
	if err != nil && !a.json {
		a.json = wantsJSON(root, args)
	}
	return a.report(ctx, c, err)
}

func (a *app) command(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "crucible",
		Short: "A checkpoint/restart workbench for Linux containers",
		Long: `Crucible runs any program in a container, checkpoints it to an image
directory, and restores it into fresh namespaces.

  crucible run --name web -d -- python3 -m http.server
  crucible checkpoint web
  crucible restore web

With --json a command prints data: an object, or a list where there may be many;
logs prints an object for each line. Commands that change containers print what
list prints of them, and "deleted" as the status of one that is gone. An error is
an object on standard error: error, object, hint, log and exitCode.

Exit status: 0 success, 1 failure, 2 wrong usage, 3 no such container or image,
4 wrong state, 5 name, address or port taken, 6 unusable image, 7 CRIU or a
kernel feature missing, 8 not permitted, 130 interrupted; 126 a program cannot
be executed in the container, 127 it does not exist there. run (unless detached),
exec and attach return the program's own status, and 125 for any other failure
of crucible.`,
		Version:            version,
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true, // see similar
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	flags := root.PersistentFlags()
	flags.BoolP("help", "h", false, "show this help")
	root.Flags().BoolP("version", "v", false, "print the version")
	flags.StringVar(&a.rootDir, "root", defaultRoot(), "directory of containers and images (also $CRUCIBLE_ROOT)")
	flags.StringVar(&a.criuPath, "criu", "", "the CRIU to use (also $CRUCIBLE_CRIU; default: the one that scripts/setup made, then PATH)")
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run containers:"},
		&cobra.Group{ID: groupLook, Title: "Look at containers:"},
		&cobra.Group{ID: groupCR, Title: "Checkpoint and restore:"},
		&cobra.Group{ID: groupLab, Title: "Experiments, and other kernels:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	root.SetHelpCommand(newHelpCommand(root))
	root.SetHelpCommandGroupID(groupOther)
	root.SetUsageFunc(printUsage)
	a.addCommands(root, args)
	if completing(args) {
		completeFlags(root)
	}
	return root
}

// addCommands gives the root its commands: only the one that is called, if it
// is clear which, because to make them all takes as long as to start a
// container takes without it.
func (a *app) addCommands(root *cobra.Command, args []string) {
	type verb struct {
		name string
		make func(*app) *cobra.Command
	}
	groups := []struct {
		id    string
		verbs []verb
	}{
		{groupRun, []verb{{"run", newRunCommand}, {"create", newCreateCommand}, {"start", newStartCommand}, {"exec", newExecCommand}, {"attach", newAttachCommand}, {"freeze", newFreezeCommand}, {"thaw", newThawCommand}, {"kill", newKillCommand}, {"stop", newStopCommand}, {"wait", newWaitCommand}, {"update", newUpdateCommand}, {"delete", newDeleteCommand}}},
		{groupLook, []verb{{"list", newListCommand}, {"info", newInfoCommand}, {"ps", newPsCommand}, {"stats", newStatsCommand}, {"logs", newLogsCommand}, {"timeline", newTimelineCommand}}},
		{groupCR, []verb{{"checkpoint", newCheckpointCommand}, {"restore", newRestoreCommand}, {"image", newImageCommand}, {"explain", newExplainCommand}}},
		{groupLab, []verb{{"experiment", newExperimentCommand}, {"kernel", newKernelCommand}}},
		{groupOther, []verb{{"doctor", newDoctorCommand}, {"completion", func(*app) *cobra.Command { return newCompletionCommand(root) }}}},
	}
	for _, only := range []bool{true, false} {
		for _, g := range groups {
			for _, v := range g.verbs {
				if only && (len(args) == 0 || args[0] != v.name) {
					continue
				}
				c := v.make(a)
				c.GroupID = g.id
				root.AddCommand(c)
				if only {
					return
				}
			}
		}
	}
}

func defaultRoot() string {
	if dir := os.Getenv("CRUCIBLE_ROOT"); dir != "" {
		return dir
	}
	return container.DefaultRoot
}

func (a *app) root() container.Root { return container.Root(a.rootDir) }

func (a *app) images() images.Store { return images.Store{Dir: a.root().Images()} }

func (a *app) criu() (*criu.CRIU, error) { return criu.Find(a.criuPath) }

// needRoot refuses a command that changes the kernel's state for somebody who may not.
func needRoot(what string) error {
	if os.Geteuid() != 0 {
		return &permissionError{what}
	}
	return nil
}

// open finds a container, after cleaning up after a monitor that was killed.
func (a *app) open(ctx context.Context, name string) (*container.Container, error) {
	c, err := a.root().Open(name)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return c, nil
	}
	return c, c.Recover(ctx)
}

// print writes a value as JSON, or by the function as text.
func (a *app) print(asJSON bool, value any, text func() error) error {
	if !asJSON {
		return text()
	}
	out := json.NewEncoder(a.stdout)
	out.SetIndent("", "  ")
	return out.Encode(value)
}

// timeline begins with the process.
func (a *app) timeline(first string) *checkpoint.Timeline {
	line := checkpoint.NewTimeline(a.born)
	if a.born.IsZero() {
		line = checkpoint.NewTimeline(a.began)
	} else {
		line.Step("start the program", false)
	}
	line.StepAt(a.began, first, false)
	return line
}

// jsonFlag gives a command --json.
func (a *app) jsonFlag(c *cobra.Command) { a.jsonFlagFor(c, "print JSON") }

// jsonFlagFor is for a command whose output is not all ours.
func (a *app) jsonFlagFor(c *cobra.Command, what string) {
	c.Flags().BoolVar(&a.json, "json", false, what)
}

// wantsJSON tells whether a command line that cannot be parsed asks for JSON,
// before or behind what is wrong with it.
func wantsJSON(root *cobra.Command, args []string) bool {
	c, rest, _ := root.Find(args)
	flags := c.Flags()
	if flags.Lookup("json") == nil { // what has nothing to print fails all the same
		flags.Bool("json", false, "")
	}
	flags.ParseErrorsAllowlist.UnknownFlags = true
	yes := false
	_ = flags.ParseAll(rest, func(f *pflag.Flag, value string) error {
		if f.Name == "json" {
			yes, _ = strconv.ParseBool(value)
		}
		return nil
	})
	return yes
}

// colours: the output is for a person who wants them (no-color.org).
func (a *app) colours() bool {
	return term.IsTerminal(int(a.stdout.Fd())) && os.Getenv("NO_COLOR") == ""
}

func (a *app) interactive() bool { return term.IsTerminal(int(a.stdin.Fd())) }

// change runs a function for one container and prints what has become of it.
func (a *app) change(ctx context.Context, name string, do func(*container.Container) error) error {
	c, err := a.open(ctx, name)
	if err != nil {
		return err
	}
	if err := do(c); err != nil {
		return err
	}
	return a.printChanged(c)
}

// printChanged prints a container's name, or its row as JSON.
func (a *app) printChanged(c *container.Container) error {
	if !a.json {
		_, err := fmt.Fprintln(a.stdout, c.Name)
		return err
	}
	r, err := rowAfter(c)
	if err != nil {
		return err
	}
	return a.print(true, r, nil)
}

// each runs a function for all names and goes on after a failure. It prints
// the names of those that it did not fail for, or a list of their rows.
func (a *app) each(ctx context.Context, names []string, do func(*container.Container) error) error {
	var errs []error
	rows := []row{}
	for _, name := range names {
		c, err := a.open(ctx, name)
		if err == nil {
			err = do(c)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case a.json:
			r, err := rowAfter(c)
			rows, errs = append(rows, r), append(errs, err)
		default:
			fmt.Fprintln(a.stdout, name)
		}
	}
	if a.json {
		errs = append(errs, a.print(true, rows, nil))
	}
	return errors.Join(errs...)
}

// exactArgs, minArgs and maxArgs say what is missing, in words.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return misuse("expected %s, got %s", what, argumentCount(args))
		}
		return nil
	}
}

func minArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return misuse("expected %s, got %s", what, argumentCount(args))
		}
		return nil
	}
}

func maxArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return misuse("expected %s, got %s", what, argumentCount(args))
		}
		return nil
	}
}

func argumentCount(args []string) string {
	switch len(args) {
	case 0:
		return "nothing"
	case 1:
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", len(args))
}
