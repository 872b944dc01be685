package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// IsTree tells whether a directory is one in which `make` builds a kernel: a
// configured source tree, or its output directory.
func IsTree(dir string) bool {
	for _, name := range []string{"Makefile", ".config"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// Build brings a tree's kernel and modules up to date, with the answers that
// its .config has no say in as they are by default. What make says goes to log.
// A tree that does not build is a *Fault: it says nothing about its kernel.
func Build(ctx context.Context, dir string, log io.Writer) error {
	for _, args := range [][]string{{"olddefconfig"}, {"-j" + strconv.Itoa(runtime.NumCPU())}} {
		cmd := exec.CommandContext(ctx, "make", args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
		// Without a terminal make asks nothing; its children end with it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = 5 * time.Second
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			remedy := "see its last lines"
			if errors.Is(err, exec.ErrNotFound) {
				remedy = "install make and a compiler, or name a built kernel with --kernel"
			}
			return &Fault{Op: "build " + dir, Err: fmt.Errorf("make %s: %w", args[0], err), Remedy: remedy}
		}
	}
	return nil
}
