package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outcome is what a command of crucible came to.
type outcome struct {
	out    []byte
	took   time.Duration
	cpu    time.Duration // user and system, with children that were waited for
	memory int64         // bytes: the most that it, or one of those, had
}

// commandError is a command that failed, in its own words.
type commandError struct {
	Message string `json:"error"`
	Remedy  string `json:"hint"`
	Log     string `json:"log"`
	Code    int    `json:"exitCode"`
}

func (e *commandError) Error() string { return e.Message }
func (e *commandError) Hint() string  { return e.Remedy }

// differs is the exit status of a checkpoint or restore that is done and found a
// difference (--verify).
const differs = 9

// stopTime is what a command has to clean up in when its run is over.
const stopTime = 15 * time.Second

// command executes crucible. When ctx ends it is interrupted, as by Ctrl-C, and
// killed only if that does not end it.
func (r *run) command(ctx context.Context, args ...string) (*outcome, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, r.o.Crucible, args...)
	cmd.Env = append(os.Environ(), "CRUCIBLE_ROOT="+r.root)
	if r.o.CRIU != "" {
		cmd.Env = append(cmd.Env, "CRUCIBLE_CRIU="+r.o.CRIU)
	}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error {
		if r.killing {
			return cmd.Process.Kill()
		}
		return cmd.Process.Signal(unix.SIGINT)
	}
	cmd.WaitDelay = stopTime
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us
	start := time.Now()
	err := cmd.Run()
	o := &outcome{out: stdout.Bytes(), took: time.Since(start)}
	if s := cmd.ProcessState; s != nil {
		o.cpu = s.UserTime() + s.SystemTime()
		if usage, ok := s.SysUsage().(*syscall.Rusage); ok {
			o.memory = int64(usage.Maxrss) << 10 // getrusage(2): kilobytes
		}
	}
	switch {
	case err == nil:
		return o, nil
	case ctx.Err() != nil:
		return o, context.Cause(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == differs && len(o.out) > 0 {
		return o, nil // it did what it should, and tells what differs
	}
	return o, failureOf(args, stderr.Bytes(), err)
}

// failureOf reads a command's error: JSON if it was asked for, or its last line.
func failureOf(args []string, stderr []byte, err error) error {
	lines := bytes.Split(bytes.TrimSpace(stderr), []byte("\n"))
	var said commandError
	if json.Unmarshal(lines[len(lines)-1], &said) == nil && said.Message != "" {
		return &said
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	text := strings.TrimSpace(string(stderr))
	message, hint, _ := strings.Cut(text, "\nhint: ")
	if text == "" {
		message = fmt.Sprintf("crucible %s: %v", args[0], err)
	}
	return &commandError{Message: strings.TrimPrefix(message, "crucible: "), Remedy: hint, Code: exit.ExitCode()}
}
