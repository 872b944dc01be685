package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// The events of a request, by CRIU's own names (criu/action-scripts.c). The
// order in which they come is in doc.go.
const (
	PreDump             = "pre-dump"
	NetworkLock         = "network-lock"
	QueryExternalFiles  = "query-ext-files"
	PostDump            = "post-dump"
	NetworkUnlock       = "network-unlock"
	PreRestore          = "pre-restore"
	SetupNamespaces     = "setup-namespaces"
	PostSetupNamespaces = "post-setup-namespaces"
	OrphanPTSMaster     = "orphan-pts-master"
	PostRestore         = "post-restore"
	PreResume           = "pre-resume"
	PostResume          = "post-resume"
)

// Event is a point in CRIU's work at which it waits for the caller.
type Event struct {
	Script string
	// Pid is the restored root task's, as the caller's pid namespace numbers
	// it, in setup-namespaces and post-restore; else 0.
	Pid int
	// Files came with the event: the master side of a terminal with
	// orphan-pts-master. They are closed when the caller's function returns;
	// one that is to be kept is taken by setting its place to nil.
	Files []*os.File
}

// outcome is all that is known about one request when it is over.
type outcome struct {
	resp      *rpc.CriuResp // nil: CRIU ended without an answer
	pid       int           // the restored root task, once CRIU has named it
	step      string        // the event that was refused
	refused   error         // why
	cancelled error         // the context's error, if it was seen in time
	killed    bool
}

func (o *outcome) ok() bool { return o.resp != nil && o.resp.GetSuccess() }

// talker leads one request's conversation.
type talker struct {
	p         *Process
	notify    func(Event) error
	killAfter time.Duration // after a cancelled context; 0 is never
	deadline  time.Time     // when to kill
	out       outcome
}

// Version asks the running CRIU for its version, on the same connection and
// without starting anything. It must come before the request.
func (p *Process) Version(ctx context.Context) (Version, error) {
	if p.version != nil {
		return *p.version, nil
	}
	// CRIU ends after an answer unless it is asked to stay
	// (criu/cr-service.c: chk_keepopen_req lists for which requests it does).
	req := &rpc.CriuReq{Type: rpc.CriuReqType_VERSION.Enum(), KeepOpen: proto.Bool(true)}
	out, err := p.talk(ctx, req, nil, 0)
	if err != nil {
		return Version{}, err
	}
	if !out.ok() || out.resp.GetVersion() == nil {
		err := p.explain("version", out, nil)
		if p.signalled() {
			return Version{}, err
		}
		return Version{}, &NotWorking{Path: p.criu.Path, Cause: "it does not tell its version", Err: err}
	}
	v := versionOf(out.resp.GetVersion())
	p.version = &v
	return v, nil
}

func (p *Process) talk(ctx context.Context, req *rpc.CriuReq, notify func(Event) error, killAfter time.Duration) (*outcome, error) {
	if p.sock < 0 {
		return nil, fmt.Errorf("criu %s: the connection is closed", opName(req.GetType()))
	}
	t := &talker{p: p, notify: notify, killAfter: killAfter}
	cancel, stop, err := wakeOn(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := sendMessage(p.sock, req); err != nil && !errors.Is(err, unix.EPIPE) {
		return nil, fmt.Errorf("criu %s: %w", opName(req.GetType()), err)
	}
	for {
		if err := t.ready(ctx, cancel); err != nil {
			return nil, err
		}
		resp := &rpc.CriuResp{}
		files, err := recvMessage(p.sock, resp)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ECONNRESET):
			return &t.out, nil // not reaped: Kill may still be needed
		case err != nil:
			return nil, err
		case resp.GetType() != rpc.CriuReqType_NOTIFY:
			closeFiles(files)
			t.out.resp = resp
			return &t.out, nil
		}
		if err := t.answer(ctx, resp.GetNotify(), files); err != nil {
			return nil, err
		}
	}
}

// ready waits until there is something to read, or CRIU has ended.
func (t *talker) ready(ctx context.Context, cancel int) error {
	for {
		fds := []unix.PollFd{
			{Fd: int32(t.p.sock), Events: unix.POLLIN},
			// Not only the socket: helpers and half-restored tasks have copies
			// of CRIU's end, which then outlives a CRIU that was killed.
			{Fd: int32(t.p.pidfd), Events: unix.POLLIN},
			{Fd: int32(cancel), Events: unix.POLLIN},
		}
		if t.out.cancelled != nil {
			fds[2].Fd = -1
		}
		_, err := unix.Poll(fds, t.timeout())
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for CRIU: %w", err)
		}
		if err == unix.EINTR {
			continue
		}
		if fds[2].Revents != 0 {
			t.out.cancelled = context.Cause(ctx)
			if t.killAfter > 0 {
				t.deadline = time.Now().Add(t.killAfter)
			}
		}
		if !t.deadline.IsZero() && time.Now().After(t.deadline) && !t.out.killed {
			t.out.killed = true
			t.p.Kill()
		}
		if fds[0].Revents != 0 {
			return nil
		}
		if fds[1].Revents != 0 {
			// It has ended, and whatever it had sent is in the socket. Where it
			// sent nothing more, a read must not wait for the copies' end.
			return unix.SetNonblock(t.p.sock, true)
		}
	}
}

func (t *talker) timeout() int {
	if t.deadline.IsZero() || t.out.killed {
		return -1
	}
	left := time.Until(t.deadline).Milliseconds() + 1
	return int(max(left, 0))
}

// answer gives the event to the caller, and the caller's word to CRIU.
func (t *talker) answer(ctx context.Context, n *rpc.CriuNotify, files []*os.File) error {
	ev := Event{Script: n.GetScript(), Pid: int(n.GetPid()), Files: files}
	defer closeFiles(ev.Files)
	defer t.p.mark(ev.Script)()
	if ev.Pid > 0 {
		t.out.pid = ev.Pid
	}
	if t.out.cancelled == nil && ctx.Err() != nil {
		t.out.cancelled = context.Cause(ctx)
	}
	var err error
	switch {
	case t.out.cancelled != nil && canStopAt(ev.Script):
		err = t.out.cancelled
		t.out.step = ev.Script
	case t.notify != nil:
		if err = t.notify(ev); err != nil && t.out.refused == nil {
			t.out.step, t.out.refused = ev.Script, err
		}
	}
	reply := &rpc.CriuReq{Type: rpc.CriuReqType_NOTIFY.Enum(), NotifySuccess: proto.Bool(err == nil)}
	if err := sendMessage(t.p.sock, reply); err != nil && !errors.Is(err, unix.EPIPE) {
		return err
	}
	return nil
}

// canStopAt says at which events a "no" makes CRIU undo everything. At the
// others it goes on all the same: network-unlock has no way to fail, and
// after post-restore the tasks are on their way (criu/cr-restore.c:
// restore_root_task only logs what pre-resume and post-resume say).
func canStopAt(script string) bool {
	switch script {
	case PreDump, NetworkLock, QueryExternalFiles, PostDump,
		PreRestore, SetupNamespaces, PostSetupNamespaces, OrphanPTSMaster, PostRestore:
		return true
	}
	return false
}

// wakeOn gives a descriptor that becomes readable when ctx is cancelled. The
// thread that waits for CRIU sits in poll(2) itself: handing the wait to the
// runtime's poller costs two more thread switches for each event, while the
// tasks are frozen.
func wakeOn(ctx context.Context) (fd int, stop func(), err error) {
	if ctx.Done() == nil {
		return -1, func() {}, nil
	}
	fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, nil, fmt.Errorf("eventfd: %w", err)
	}
	ended := make(chan struct{})
	detach := context.AfterFunc(ctx, func() {
		defer close(ended)
		_, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	return fd, func() {
		if !detach() {
			<-ended
		}
		unix.Close(fd)
	}, nil
}

func opName(t rpc.CriuReqType) string { return strings.ToLower(t.String()) }
