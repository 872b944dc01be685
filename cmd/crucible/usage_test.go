package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"crucible/container"
)

func eachCommand(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, sub := range c.Commands() {
		eachCommand(sub, do)
	}
}

// Every command's help has the same parts in the same words.
func TestHelp(t *testing.T) {
	a := &app{}
	eachCommand(a.command(nil), func(c *cobra.Command) {
		var out bytes.Buffer
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		text, path := out.String(), c.CommandPath()
		for _, line := range strings.Split(c.Long, "\n") {
			if len(line) > 90 {
				t.Errorf("%s: a line is %d characters long: %s", path, len(line), line)
			}
		}
		if c.Long == "" || !strings.HasSuffix(c.Long, ".") || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the long text is a sentence, the short one is not: %q, %q", path, c.Short, c.Long)
		}
		acts := c.Runnable() && !c.HasSubCommands() && c.Name() != "help" && c.Name() != "completion"
		if acts && !strings.Contains(text, "Exit status: ") {
			t.Errorf("%s: no exit status", path)
		}
		if c.HasParent() && !c.HasExample() {
			t.Errorf("%s: no example", path)
		}
		if acts && c.Flags().Lookup("json") == nil {
			t.Errorf("%s: no --json", path)
		}
		if acts && !strings.Contains(text, path+" [flags]") {
			t.Errorf("%s: the flags are not before the arguments in its usage", path)
		}
		if bad := regexp.MustCompile(`(?m)^ +(-\w, )?--\S+ (string|int|float|duration)|\[\]\)|-1\)`).FindString(text); bad != "" {
			t.Errorf("%s: speaks of Go's types: %s", path, bad)
		}
	})
}

// What --ulimit is completed with is what it takes.
func TestCompletedLimits(t *testing.T) {
	words, _ := flagValues("ulimit")(nil, nil, "")
	for _, w := range words {
		if _, err := container.NewSpec(container.RunOptions{Args: []string{"true"}, Rlimits: []string{w + "1"}}); err != nil {
			t.Error(err)
		}
	}
	if len(words) != 16 {
		t.Errorf("%d limits", len(words))
	}
}
