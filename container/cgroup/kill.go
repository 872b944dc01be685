package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// Kill ends every process of the group and of those nested in it with SIGKILL,
// frozen or not, and returns when none is left: what remains are zombies at
// most. If ctx ends before, the error is a *StuckError with those that live.
func (g *Group) Kill(ctx context.Context) error {
	began := time.Now()
	for {
		left, err := g.killOnce(ctx)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && !left:
			return nil // no group, no process
		case err != nil:
			return fmt.Errorf("kill cgroup %s: %w", g.name, err)
		case ctx.Err() != nil:
			tasks := g.tasks(func(t Task) bool { return t.State != "Z" && t.State != "X" })
			return fmt.Errorf("kill cgroup %s: %w", g.name, errors.Join(&StuckError{Verb: "end", After: time.Since(began), Tasks: tasks}, ctx.Err()))
		}
	}
}

// watched is how many processes are waited for at once.
const watched = 128

// killOnce kills those that are there and waits for some of them; left is false
// when there were none.
func (g *Group) killOnce(ctx context.Context) (left bool, err error) {
	pids, err := g.list("cgroup.procs")
	if err != nil || len(pids) == 0 {
		return false, err
	}
	if slices.Contains(pids, os.Getpid()) { // if only by one of its threads
		return false, errOurs()
	}
	if err := g.killAll(); errors.Is(err, fs.ErrNotExist) {
		// v1, and v2 before Linux 5.14. A frozen task forks nothing; on v1 it
		// does not die either before it is thawed.
		if f, err := g.freezer(); err == nil {
			_ = f.set(f.freeze)
		}
	}
	handles, err := g.handles(pids)
	g.thawAll()
	waitExit(ctx, handles)
	for _, h := range handles {
		unix.Close(h)
	}
	if len(handles) == 0 {
		pause(100 * time.Microsecond) // dead, but still listed
	}
	return true, err
}

// killAll has the kernel do it, which leaves no gap for a fork.
func (g *Group) killAll() error {
	if g.leaves[0].Version != 2 {
		return fs.ErrNotExist
	}
	return put(filepath.Join(g.leaves[0].dir, "cgroup.kill"), "1")
}

// handles sends SIGKILL to the processes, and opens the first of them to be
// waited for. A pid may be somebody else's by the time it is used: it counts
// only if, after it has been opened, the group still lists it.
func (g *Group) handles(pids []int) ([]int, error) {
	var handles []int
	for batch := range slices.Chunk(pids, watched) {
		fds := make([]int, 0, len(batch))
		opened := make([]int, 0, len(batch))
		for _, pid := range batch {
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				fds, opened = append(fds, fd), append(opened, pid)
			}
		}
		now, err := g.list("cgroup.procs")
		for i, fd := range fds {
			if err == nil && slices.Contains(now, opened[i]) {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				if len(handles) < watched {
					handles = append(handles, fd)
					continue
				}
			}
			unix.Close(fd)
		}
		if err != nil {
			return handles, err
		}
	}
	return handles, nil
}

// thawAll thaws the group and those nested in it, which may have been frozen
// by themselves: on v1 their tasks do not die otherwise.
func (g *Group) thawAll() {
	f, err := g.freezer()
	if err != nil {
		return
	}
	dirs, _ := below(f.dir)
	for _, dir := range dirs {
		_ = put(filepath.Join(f.dir, dir, f.control), f.thaw)
	}
}

// waitExit returns when all processes have ended, or ctx has.
func waitExit(ctx context.Context, pidfds []int) {
	const look = 20 * time.Millisecond // for ctx
	for len(pidfds) > 0 && ctx.Err() == nil {
		fds := make([]unix.PollFd, len(pidfds))
		for i, fd := range pidfds {
			fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		}
		if _, err := unix.Poll(fds, int(look.Milliseconds())); err != nil && err != unix.EINTR {
			return
		}
		var alive []int
		for i := range fds {
			if fds[i].Revents == 0 {
				alive = append(alive, pidfds[i])
			}
		}
		pidfds = alive
	}
}

// removeTime bounds how long Remove waits for the kernel.
const removeTime = time.Second

// Remove takes the group away in every hierarchy, with all that is nested in
// it. It may be called again, and for what a crash left. A group with processes
// cannot be removed: the error names them. ctx bounds the waiting only.
//
// A process that has ended may keep its group busy for a moment after its
// parent has reaped it: the kernel takes it out when it is done with switching
// away from it (from 6.19 on), and css_offline runs in a workqueue. There is no
// event for that on v1, and on v2 none that comes soon (see Freeze).
func (g *Group) Remove(ctx context.Context) error {
	until := time.Now().Add(removeTime)
	var failed error
	for _, l := range slices.Backward(g.leaves) {
		ok, err := poll(ctx, until, func() (bool, error) {
			err := removeTree(l.dir)
			if errors.Is(err, unix.EBUSY) {
				return false, nil
			}
			return true, err
		})
		if ok && err == nil {
			continue
		}
		if err == nil {
			err = unix.EBUSY
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w%s", l.dir, err, residents(l.dir)))
	}
	if failed != nil {
		return fmt.Errorf("remove cgroup %s: %w", g.name, failed)
	}
	return nil
}

// removeTree removes a cgroup and those nested in it. None there is fine.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err != unix.EBUSY && err != unix.ENOTEMPTY {
		return removed(dir, err)
	}
	dirs, err := below(dir)
	if err != nil {
		return removed(dir, err)
	}
	for _, d := range slices.Backward(dirs) { // the innermost first
		path := filepath.Join(dir, d)
		if err := removed(path, unix.Rmdir(path)); err != nil {
			return err
		}
	}
	return nil
}

func removed(dir string, err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("rmdir %s: %w", dir, err)
}

// residents names the processes in a cgroup and those nested in it.
func residents(dir string) string {
	dirs, _ := below(dir)
	text := ""
	for _, d := range dirs {
		pids, _ := numbers(filepath.Join(dir, d, "cgroup.procs"))
		for _, pid := range pids {
			s, err := proc.Root.Stat(pid)
			if err == nil && len(text) < 100 {
				text += fmt.Sprintf(", pid %d (%s) is in it", pid, s.Comm)
			}
		}
	}
	return text
}

// Sweep removes crucible/ from every hierarchy in which no container is left.
// Remove does not do it: to make it again costs the next container 0.15 ms, and
// on v2 before Linux 6.0 a grace period to share out the controllers anew.
func (g *Group) Sweep() error { return g.layout.Sweep() }

// Sweep is the Sweep of any of the layout's groups.
func (l Layout) Sweep() error {
	var failed error
	for _, h := range l.Hierarchies {
		err := removed(filepath.Join(h.Mount, Top), unix.Rmdir(filepath.Join(h.Mount, Top)))
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
