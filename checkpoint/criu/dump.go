package criu

import (
	"context"
	"syscall"
	"time"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
)

// Result is what is known about a request that succeeded.
type Result struct {
	Pid   int       // the restored root task, in the caller's pid namespace
	Done  time.Time // when CRIU's answer came
	Marks []Mark    // what joins its log with our clock
}

// Dump writes the images of a process tree. Unless LeaveRunning is set, CRIU
// kills the tasks when it is done; if anything fails, an event's refusal
// included, it lets them go on.
//
// A group given as FreezeCgroup that was frozen before is frozen again
// afterwards, also after a failure: the caller thaws.
func (p *Process) Dump(ctx context.Context, o DumpOptions, notify func(Event) error) (*Result, error) {
	opts, config, err := o.request()
	if err != nil {
		return nil, err
	}
	o.forgetLog()
	p.log = &o.Common
	mended := func(e Event) error {
		if e.Script == PostDump && o.Images != nil {
			if err := mendTimers(o.Images); err != nil {
				return err
			}
		}
		if notify == nil {
			return nil
		}
		return notify(e)
	}
	out, err := p.request(ctx, rpc.CriuReqType_DUMP, opts, config, mended, 0)
	if err != nil {
		return nil, err
	}
	if !out.ok() {
		return nil, p.explain("dump", out, &o.Common)
	}
	return &Result{Pid: o.Pid, Done: time.Now(), Marks: p.marks}, nil
}

func (p *Process) request(ctx context.Context, t rpc.CriuReqType, opts *rpc.CriuOpts, config string, notify func(Event) error, killAfter time.Duration) (*outcome, error) {
	file, err := attachConfig(opts, config)
	if err != nil {
		return nil, err
	}
	if file != nil {
		defer file.Close()
	}
	return p.talk(ctx, &rpc.CriuReq{Type: t.Enum(), Opts: opts}, notify, killAfter)
}

// signalled tells whether CRIU was ended by a signal.
func (p *Process) signalled() bool {
	if p.state == nil {
		return false
	}
	status, ok := p.state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// explain makes an error of what CRIU said, and of where it said it.
func (p *Process) explain(op string, out *outcome, c *Common) error {
	e := &Error{Op: op, Step: out.step, Err: out.refused, Killed: out.killed}
	if e.Err == nil {
		e.Err = out.cancelled
	}
	if out.resp == nil {
		p.reap()
		e.Killed = true
	}
	if e.Step != "" && e.Err != nil {
		return e // CRIU has only said that the caller refused
	}
	var found Cause
	if c != nil {
		found = c.readCause(e)
	}
	if found.Text == "" {
		// Before CRIU has opened its log it writes to its standard error.
		found = causeOf(said(p.stderr))
	}
	if found.Text == "" && out.resp.GetCrErrmsg() != "" {
		// CRIU's first error line: often harmless, and better than nothing.
		found = causeOf("Error (): " + out.resp.GetCrErrmsg())
	}
	e.fill(found)
	if e.Errno == 0 && out.resp != nil && out.resp.GetCrErrno() != 0 {
		e.Errno = syscall.Errno(out.resp.GetCrErrno())
	}
	if e.Cause == "" && out.resp == nil && p.state != nil {
		e.Cause = "CRIU ended without an answer: " + p.state.String()
	}
	if e.Remedy == "" && p.signalled() {
		e.Remedy = "somebody has killed CRIU, or the kernel for want of memory (dmesg tells): try again"
	}
	if e.Kind == "library-missing" || e.Kind == "library-version" {
		return &NotWorking{Path: p.criu.Path, Remedy: e.Remedy, Err: e}
	}
	return e
}
