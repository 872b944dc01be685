package criu

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
	"golang.org/x/sys/unix"
)

// killRestoreAfter is how long a restore may take to give up by itself.
// Giving up is the better way: CRIU then also removes what it had mounted.
const killRestoreAfter = 2 * time.Second

// Restore makes a process tree from its images. If it fails, or its context
// is cancelled before the tasks run, nothing of the tree is left: with
// Sibling, the root task has been waited for, too.
//
// One case is left open: a tree without a pid namespace, whose CRIU is killed
// by somebody else (the kernel, short of memory) in the last instants before
// post-restore. Nothing then tells its root task from another child.
//
// With Sibling and success the root task is a child of the calling process,
// which must wait for it.
func (p *Process) Restore(ctx context.Context, o RestoreOptions, notify func(Event) error) (*Result, error) {
	opts, config, err := o.request()
	if err != nil {
		return nil, err
	}
	o.forgetLog()
	p.log = &o.Common
	p.setRestoring(o.Sibling)
	defer p.setRestoring(false)
	out, err := p.request(ctx, rpc.CriuReqType_RESTORE, opts, config, notify, killRestoreAfter)
	if err != nil {
		p.destroy(&outcome{}, o.Sibling)
		return nil, err
	}
	if !out.ok() {
		p.destroy(out, o.Sibling)
		return nil, p.explain("restore", out, &o.Common)
	}
	return &Result{Pid: int(out.resp.GetRestore().GetPid()), Done: time.Now(), Marks: p.marks}, nil
}

// destroy sees to it that nothing of a failed restore lives on. CRIU has
// killed what it had made if it came to answer; a CRIU that died has not.
func (p *Process) destroy(out *outcome, sibling bool) {
	pid := out.pid
	if out.resp != nil {
		pid = int(out.resp.GetRestore().GetPid())
	} else {
		p.Kill() // before anybody waits: the group's number is still CRIU's
		if pid == 0 {
			pid = p.seenRoot()
		}
	}
	if pid <= 1 || !sibling || !isChild(pid) {
		return
	}
	killTree(pid)
	for {
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != unix.EINTR {
			return
		}
	}
}

func (p *Process) seenRoot() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.root == 0 {
		p.root = p.findRoot()
	}
	return p.root
}

// findRoot finds the root task of a restore that CRIU has not named yet, as
// it happens without namespaces (with them, the task leaves CRIU's process
// group only after setup-namespaces: criu/cr-restore.c:
// __restore_task_with_children). It is a child of ours that CRIU traces or,
// if CRIU is dead, one that still runs CRIU's program in a session of its
// own, as no other `criu swrk` does and no task whose restore is complete.
func (p *Process) findRoot() int {
	program, err := os.Stat(p.criu.Path)
	if err != nil {
		return 0
	}
	for _, pid := range children(os.Getpid()) {
		if pid == p.Pid() {
			continue
		}
		switch tracer(pid) {
		case p.Pid():
			return pid
		case 0:
			pgid, _ := unix.Getpgid(pid)
			sid, _ := unix.Getsid(pid)
			exe, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
			if pgid == p.Pid() || sid == pid && err == nil && os.SameFile(exe, program) {
				return pid
			}
		}
	}
	return 0
}

// tracer is who traces a task; -1 if that cannot be told.
func tracer(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return -1
	}
	_, rest, _ := strings.Cut(string(status), "TracerPid:")
	line, _, _ := strings.Cut(rest, "\n")
	number, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return -1
	}
	return number
}

// isChild says whether pid is a child of ours that nobody has waited for,
// whose number therefore belongs to nobody else.
func isChild(pid int) bool {
	return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil) == nil
}

// killTree kills a task and all below it. The death of a pid namespace's
// first process takes the others with it; a tree without one must be walked,
// bottom up, while the links are there.
func killTree(pid int) {
	for _, child := range children(pid) {
		killTree(child)
	}
	_ = unix.Kill(pid, unix.SIGKILL)
}

func children(pid int) []int {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	var list []int
	for _, t := range tasks {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				list = append(list, child)
			}
		}
	}
	return list
}
