package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// command is a program to be measured from its start to its exit.
type command struct {
	argv []string
	env  []string // beside our own
	// netns is the network namespace to start it in; fresh starts it in a new one.
	netns string
	fresh bool
	// mute gives it no files of ours as its streams: it would hand them on to
	// a container, which could then not be dumped.
	mute bool
}

// limit is how long a command may take.
const limit = 3 * time.Minute

// run executes a command and returns what it printed and how long it took.
// A cancelled context keeps it from starting; once it runs it is left to
// finish, so that nothing half made has to be cleaned up.
func (r *rig) run(ctx context.Context, c command) (string, time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return "", 0, err
	}
	out, err := r.scratch()
	if err != nil {
		return "", 0, err
	}
	defer out.Close()
	errs, err := r.scratch()
	if err != nil {
		return "", 0, err
	}
	defer errs.Close()
	kill, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(kill, c.argv[0], c.argv[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	// Files and not pipes: what stays in the background keeps them open.
	if !c.mute {
		cmd.Stdout, cmd.Stderr = out, errs
	}
	// A group of its own: Ctrl-C is for us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.fresh {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	}
	begin := time.Now()
	if err = start(cmd, c.netns); err == nil {
		err = cmd.Wait()
	}
	took := time.Since(begin)
	if err != nil {
		return "", took, fmt.Errorf("%s: %w: %s", strings.Join(c.argv, " "), err, lastLines(readBack(errs), readBack(out)))
	}
	return string(readBack(out)), took, nil
}

// start starts a command, in a network namespace if one is given.
func start(cmd *exec.Cmd, netns string) error {
	if netns == "" {
		return cmd.Start()
	}
	ns, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", netns, err)
			return
		}
		done <- cmd.Start()
	}()
	return <-done
}

// scratch is a file without a name.
func (r *rig) scratch() (*os.File, error) {
	f, err := os.CreateTemp(r.dir, "out")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

func readBack(f *os.File) []byte {
	data, _ := io.ReadAll(io.NewSectionReader(f, 0, 1<<22))
	return data
}

// lastLines are the end of what a failed command said.
func lastLines(said ...[]byte) string {
	lines := strings.Split(string(bytes.TrimSpace(bytes.Join(said, []byte("\n")))), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], "; ")
}

// do runs a command whose time is of no interest.
func (r *rig) do(ctx context.Context, argv ...string) error {
	_, _, err := r.run(ctx, command{argv: argv})
	return err
}
