package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// crucible runs the program with a state root of its own.
type crucible struct {
	path, root string
}

// run runs one command, and decodes what it prints if into is not nil.
func (c crucible) run(ctx context.Context, into any, args ...string) error {
	cmd := exec.CommandContext(ctx, c.path, append([]string{"--root", c.root}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// Ctrl-C on the terminal is for the demo, which passes it on: crucible then
	// leaves the container as it was.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) }
	cmd.WaitDelay = 15 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		said := strings.TrimSpace(errs.String())
		var exit *exec.ExitError
		if errors.As(err, &exit) && said != "" {
			err = errors.New(said)
		}
		return fmt.Errorf("crucible %s: %w", args[0], err)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		return fmt.Errorf("crucible %s: read its JSON: %w", args[0], err)
	}
	return nil
}

// container is what `crucible list --json` says of one.
type container struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	Address string `json:"address"`
}

func (c crucible) list(ctx context.Context) ([]container, error) {
	var all []container
	err := c.run(ctx, &all, "list", "--json")
	return all, err
}

// deleteAll deletes every container of the state root.
func (c crucible) deleteAll(ctx context.Context) error {
	all, err := c.list(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, one := range all {
		errs = append(errs, c.run(ctx, nil, "delete", "-f", one.Name))
	}
	return errors.Join(errs...)
}
