package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container"
	"crucible/container/cgroup"
)

// defaultTimeout is meant for a machine that is emulated.
const defaultTimeout = time.Minute

// Run asks one question. What it starts is gone when it returns, also when the
// case hangs or ctx is cancelled.
func Run(ctx context.Context, c Case, o Options) Result {
	r := Result{Case: c.Name, Verdict: Pass, Step: StepRun}
	start := time.Now()
	timeout := cmp.Or(o.Timeout, defaultTimeout)
	limited, cancel := context.WithTimeoutCause(ctx, timeout, &lateError{timeout})
	defer cancel()
	err := run(limited, c, o, &r)
	if err != nil && limited.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(limited), err)
	}
	r.judge(c, err)
	r.Took = time.Since(start)
	return r
}

// lateError is a case that hangs.
type lateError struct{ limit time.Duration }

func (e *lateError) Error() string { return fmt.Sprintf("not done after %v", e.limit) }

func run(ctx context.Context, c Case, o Options, r *Result) error {
	f := o.Features
	if f == nil {
		var err error
		if f, err = Probe(ctx, o.CRIU, []Case{c}); err != nil {
			return err
		}
	}
	if lack := f.lack(c.Needs); lack != nil {
		return lack
	}
	s := &stage{c: c, o: o, r: r}
	s.name = cmp.Or(o.prefix, fmt.Sprintf("wl%d", os.Getpid())) + "-" + c.Name
	r.container = s.name
	// What hangs comes to an end with the processes that it waits for.
	stop := context.AfterFunc(ctx, s.kill)
	err := s.play(ctx)
	stop()
	if err != nil && r.worth(c, err) {
		err = errors.Join(err, s.keep())
	}
	return errors.Join(err, s.clean())
}

// worth tells whether what is left of a case is worth keeping.
func (r *Result) worth(c Case, err error) bool {
	probe := *r
	probe.judge(c, err)
	return probe.Verdict == Fail
}

// judge turns a case's error into its verdict.
func (r *Result) judge(c Case, err error) {
	var lack *LackError
	var left *leftError
	var late *lateError
	switch {
	case err == nil:
		return
	case errors.As(err, &left), errors.As(err, &late):
	case errors.As(err, &lack):
		r.Verdict, r.Reason = Skip, lack.Error()
		return
	case c.Known != nil && c.Known.Step == r.Step:
		r.Verdict, r.Reason = Skip, "known: "+c.Known.Why
		return
	}
	// What was being done to which container is told by step and case.
	text := oneLine(err)
	if late != nil {
		text = late.Error()
	} else if verb, reason, found := strings.Cut(text, " container "+r.container+": "); found && !strings.Contains(verb, " ") {
		text = reason
	}
	r.Verdict, r.Reason, r.Hint = Fail, text, hint(err)
}

// hint is the first one in the tree of an error.
func hint(err error) string {
	switch e := err.(type) {
	case *container.RemoteError:
		return e.Hint
	case interface{ Hint() string }:
		if h := e.Hint(); h != "" {
			return h
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return hint(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if h := hint(inner); h != "" {
				return h
			}
		}
	}
	return ""
}

// kill ends all processes of a case that has had its time.
func (s *stage) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	layout, err := cgroup.Detect()
	if err != nil {
		return
	}
	for _, name := range s.names() {
		if group, err := layout.Open(name); err == nil {
			_ = group.Kill(ctx)
		}
	}
}

// leftError says that something of a case could not be removed.
type leftError struct{ err error }

func (e *leftError) Error() string { return "left behind: " + e.err.Error() }
func (e *leftError) Unwrap() error { return e.err }

// clean removes all that the case has made.
func (s *stage) clean() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var errs []error
	for _, name := range s.names() {
		box, err := s.o.Root.Open(name)
		var gone *container.NotFoundError
		if err == nil {
			err = box.Delete(ctx, container.DeleteOptions{Force: true})
		}
		if !errors.As(err, &gone) {
			errs = append(errs, err)
		}
		// That of a restore which failed.
		errs = append(errs, os.RemoveAll(s.o.Root.Logs(name)))
	}
	for _, m := range s.monitors { // each ends a moment after its container
		errs = append(errs, ends(ctx, m))
	}
	errs = append(errs, s.removeImages(ctx), s.removeDir())
	if err := errors.Join(errs...); err != nil {
		return &leftError{err}
	}
	return nil
}

// ends waits until a process is gone.
func ends(ctx context.Context, p container.Process) error {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return nil // it is
	}
	defer unix.Close(fd)
	for p.Alive() {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		switch {
		case n > 0:
			return nil
		case err != nil && err != unix.EINTR:
			return os.NewSyscallError("poll", err)
		case ctx.Err() != nil:
			return fmt.Errorf("the monitor, pid %d, does not end: %w", p.Pid, ctx.Err())
		}
	}
	return nil
}

// words are the lines of a container's log.
func words(log string) (all []string) {
	for _, text := range strings.Split(log, "\n") {
		if l, ok := container.ParseLogLine(text); ok {
			all = append(all, strings.TrimSuffix(l.Text, "\r"))
		}
	}
	return all
}

// lastWords is the line that says why a program ended: its verdict, the head of
// a crash of the Go runtime, or just the last one.
func lastWords(log string) string {
	last := ""
	for _, last = range words(log) {
		for _, head := range []string{saysDiffer, saysFailed, "panic: ", "fatal error: ", "unexpected fault"} {
			if strings.HasPrefix(last, head) {
				return last
			}
		}
	}
	return last
}
