package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// State is the answer to "can it?": it can, it cannot, or that could not be
// found out.
type State string

// The answers.
const (
	Have    State = "yes"
	HaveNot State = "no"
	Unknown State = "unknown"
)

// Row is one line of a report: what was asked, the answer, and CRIU's reason.
type Row struct {
	Name   string
	State  State
	Detail string
}

// Check asks CRIU whether the kernel has all that a dump and a restore always
// need (`criu check`). The error of a CRIU that says no is NotWorking.
func (c *CRIU) Check(ctx context.Context) error {
	out, err := c.run(ctx, "check", "-v1")
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return &NotWorking{Path: c.Path, Err: err}
	}
	why := causeOf(out)
	return &NotWorking{Path: c.Path, Cause: why.Text, Remedy: why.Remedy, Err: err}
}

// Features asks CRIU for each kernel feature that it can ask about, one
// process each: some 0.2 s in all. It is for a report, not for a decision on
// the way to a dump.
func (c *CRIU) Features(ctx context.Context) ([]Row, error) {
	// --help lists the names; so the list is this CRIU's own. It ends with
	// status 0 or 1, depending on the release.
	help, err := c.run(ctx, "--help")
	names := featureNames(help)
	if len(names) == 0 {
		return nil, &NotWorking{Path: c.Path, Cause: "it does not list its features", Err: err}
	}
	var rows []Row
	for _, name := range names {
		row, err := c.Feature(ctx, name)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// Feature asks CRIU for one kernel feature by the name that `criu check
// --feature` has for it. The error is that of the context.
func (c *CRIU) Feature(ctx context.Context, name string) (Row, error) {
	out, err := c.run(ctx, "check", "-v2", "--feature", name)
	if ctx.Err() != nil {
		return Row{}, fmt.Errorf("criu check --feature %s: %w", name, context.Cause(ctx))
	}
	return featureRow(name, out, err), nil
}

// featureNames reads the list out of `criu --help`.
func featureNames(help string) []string {
	_, list, ok := strings.Cut(help, "only check a particular feature, one of:")
	if !ok {
		return nil
	}
	list, _, _ = strings.Cut(list, "*") // the next heading
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' })
}

func featureRow(name, out string, err error) Row {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return Row{Name: name, State: Have}
	case !errors.As(err, &exit) || !exit.Exited():
		return Row{Name: name, State: Unknown, Detail: err.Error()}
	case strings.Contains(out, "Unknown feature"):
		return Row{Name: name, State: Unknown, Detail: "this CRIU does not know the feature"}
	case strings.Contains(out, "Could not initialize kernel features detection"):
		return Row{Name: name, State: Unknown, Detail: causeOf(out).Text} // it came not so far as to ask
	}
	return Row{Name: name, State: HaveNot, Detail: reason(out)}
}

// reason finds why a check said no: an error, or else the last warning.
func reason(out string) string {
	lines, _ := ParseLog(strings.NewReader(out))
	if c := findCause(lines); c.Text != "" {
		return c.Text
	}
	for i := len(lines) - 1; i >= 0; i-- {
		if lines[i].Level == Warning {
			return lines[i].Text
		}
	}
	return lastLine(out)
}

// run runs CRIU as a command. Such a run changes nothing, so it may die with
// its parent; a thread that ends would do as well as the process
// (prctl(2), PR_SET_PDEATHSIG), which is why it is not set: the context's
// end kills it.
func (c *CRIU) run(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Path, append([]string{"--no-default-config"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err := cmd.Run()
	return out.String(), err
}
