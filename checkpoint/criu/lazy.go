package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// LazyOptions say where a loader takes the pages from. Images is required.
type LazyOptions struct {
	Images   *os.File // the directory of the images
	Work     *os.File // where its socket, its log and its readiness are; the restore's Work; nil is Images
	LogFile  string   // a plain name in Work; "" is criu-lazy-pages.log
	LogLevel int      // 0 is 2
	// From is the page server that the pages come from. Without one they are
	// in Images.
	From  *PageServer
	Extra []string // as in Common
}

// Loader is a running `criu lazy-pages`: it gives a restored program its
// memory, page by page as it is touched and all the rest in between, and
// ends when the program has all of it.
//
// It is not tied to the caller's life: a program whose loader is killed
// hangs at the first page it lacks.
type Loader struct {
	cmd     *exec.Cmd
	options LazyOptions
	stderr  *os.File
	ended   chan struct{} // closed when it has been waited for
	err     error         // what that gave
}

// LazyPages starts a loader, and returns when it listens, so that a restore
// with LazyPages and the same Work finds it. The context is for the start
// only.
func (c *CRIU) LazyPages(ctx context.Context, o LazyOptions) (*Loader, error) {
	if o.Images == nil {
		return nil, fmt.Errorf("criu lazy-pages: no directory for the images")
	}
	config, err := configText(o.Extra)
	if err != nil {
		return nil, err
	}
	stderr, err := memfd("criu-stderr")
	if err != nil {
		return nil, err
	}
	l := &Loader{options: o, stderr: stderr, ended: make(chan struct{})}
	if err := l.start(ctx, c, config); err != nil {
		stderr.Close()
		return nil, err
	}
	return l, nil
}

func (l *Loader) start(ctx context.Context, c *CRIU, config string) error {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("criu lazy-pages: %w", err)
	}
	defer ready.Close()
	defer theirs.Close()
	files := []*os.File{l.options.Images, l.work(), theirs}
	args := l.options.args()
	if config != "" {
		f, err := memfd("criu-options")
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteString(config); err != nil {
			return fmt.Errorf("criu lazy-pages: write its options: %w", err)
		}
		args = append([]string{"--config", "/proc/self/fd/6"}, args...)
		files = append(files, f)
	} else {
		args = append([]string{"--no-default-config"}, args...)
	}
	// Not exec.CommandContext: the loader outlives the context, and the caller.
	l.log().forgetLog()
	l.cmd = exec.Command(c.Path, args...)
	l.cmd.Env = environment()
	l.cmd.Stderr = l.stderr
	l.cmd.ExtraFiles = files
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := l.cmd.Start(); err != nil {
		return startError(c.Path, err)
	}
	theirs.Close()
	if err := awaitReady(ctx, ready); err != nil {
		_ = l.cmd.Process.Kill()
		_ = l.cmd.Wait()
		return l.explain(err)
	}
	go func() {
		l.err = l.cmd.Wait()
		close(l.ended)
	}()
	return nil
}

// args are the command's words. The directories are its descriptors 3 and
// 4, the pipe for its readiness is 5 (os/exec: ExtraFiles).
func (o *LazyOptions) args() []string {
	level := o.LogLevel
	if level == 0 {
		level = 2
	}
	args := []string{"lazy-pages", "-D", "/proc/self/fd/3", "-W", "/proc/self/fd/4",
		"-o", o.logFile(), "-v" + strconv.Itoa(level), "--status-fd", "5"}
	if from := o.From; from != nil {
		args = append(args, "--page-server")
		if from.Address != "" {
			args = append(args, "--address", from.Address)
		}
		if from.Port != 0 {
			args = append(args, "--port", strconv.Itoa(from.Port))
		}
	}
	return args
}

func (o *LazyOptions) logFile() string {
	if o.LogFile == "" {
		return "criu-lazy-pages.log"
	}
	return o.LogFile
}

func (l *Loader) work() *os.File {
	if l.options.Work != nil {
		return l.options.Work
	}
	return l.options.Images
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

// Pid is the loader's process id.
func (l *Loader) Pid() int { return l.cmd.Process.Pid }

// Wait waits until the loader has given out every page, and for its end. If
// the context ends first, the loader goes on, and Wait may be called again.
func (l *Loader) Wait(ctx context.Context) error {
	select {
	case <-l.ended:
		if l.err != nil {
			return l.explain(l.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("criu lazy-pages: %w", context.Cause(ctx))
	}
}

// Kill ends the loader. The program that it serves is lost, unless it has
// all of its pages.
func (l *Loader) Kill() { _ = l.cmd.Process.Kill() }

// log says where the log is, as other requests do.
func (l *Loader) log() *Common {
	return &Common{Images: l.options.Images, Work: l.options.Work, LogFile: l.options.logFile()}
}

func (l *Loader) explain(err error) error {
	e := &Error{Op: "lazy-pages", Err: err}
	c := l.log()
	found := c.readCause(e)
	if found.Text == "" {
		buf := make([]byte, 64<<10)
		n, _ := l.stderr.ReadAt(buf, 0)
		found = causeOf(string(buf[:n]))
	}
	e.fill(found)
	return e
}
