package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Loader is a running `criu lazy-pages`: it gives a restored program its
// memory, page by page as it is touched and all the rest in between, and
// ends when the program has all of it.
//
// It is not tied to the caller's life. A program whose loader is killed or fails
// goes on without the pages that it lacks, and must be ended.
type Loader struct{ process *os.Process }

// LazyPages starts a loader that takes the pages from the images, and returns
// when it listens, so that a restore with LazyPages and the same directory for
// the log finds it. The context is for the start only. The loader keeps hold open
// for as long as it lives. It waits for ever for a restore that never comes, so
// that born is told its pid at once, to be written down.
func (c *CRIU) LazyPages(ctx context.Context, images, work *os.File, born func(pid int) error, hold ...*os.File) (*Loader, error) {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("criu lazy-pages: %w", err)
	}
	defer ready.Close()
	defer theirs.Close()
	stderr, err := memfd("criu-stderr")
	if err != nil {
		return nil, fmt.Errorf("criu lazy-pages: %w", err)
	}
	defer stderr.Close()
	log := &Common{Images: images, Work: work, LogFile: "criu-lazy-pages.log"}
	log.forgetLog()
	// Not exec.CommandContext: the loader outlives the context, and the caller.
	// Its descriptors 3 and 4 are the directories, 5 is the pipe for its readiness
	// (os/exec: ExtraFiles).
	cmd := exec.Command(c.Path, "--no-default-config", "lazy-pages", "-D", "/proc/self/fd/3", "-W", "/proc/self/fd/4",
		"-o", log.LogFile, "-v2", "--status-fd", "5")
	cmd.Env = environment()
	cmd.Stderr = stderr
	cmd.ExtraFiles = append([]*os.File{images, work, theirs}, hold...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, startError(c.Path, err)
	}
	theirs.Close()
	if err := born(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	if err := awaitReady(ctx, ready); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		e := &Error{Op: "lazy-pages", Err: err}
		found := log.readCause(e)
		if found.Text == "" {
			found = causeOf(said(stderr))
		}
		e.fill(found)
		return nil, e
	}
	go func() { _ = cmd.Wait() }()
	return &Loader{cmd.Process}, nil
}

// awaitReady waits for the byte that CRIU writes once its socket listens
// (criu/uffd.c: cr_lazy_pages; criu/util.c: status_ready).
func awaitReady(ctx context.Context, ready *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Now()) })
	defer stop()
	_, err := ready.Read(make([]byte, 1))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return errNotReady{}
	}
	return err
}

// errNotReady: the loader ended before it was ready; its log says why.
type errNotReady struct{}

func (errNotReady) Error() string { return "it ended before it was ready" }

// Kill ends the loader. The program that it serves is lost, unless it has
// all of its pages.
func (l *Loader) Kill() { _ = l.process.Kill() }
