package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Add moves a process into the group, with all its threads; what it has forked
// before stays where it is.
//
// It is slow: for a process other than the caller the kernel stops all forks
// and exits of the machine (cgroup_threadgroup_rwsem), and if nobody did so in
// the last moments that begins with an RCU grace period, 5 to 16 ms here. The
// next few milliseconds' are fast: 30 µs. Start avoids it.
func (g *Group) Add(pid int) error {
	for _, l := range g.leaves {
		if err := put(filepath.Join(l.dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("add pid %d to cgroup %s: %w", pid, g.name, err)
		}
	}
	return nil
}

// SplitTasks divides the group where v1 has a hierarchy that counts tasks and
// does nothing else: rest is the group without it, for Start. A process with
// several threads that is to execute a program with one can so enter it last,
// when no thread of its own counts any more: the one that writes "0" to tasks.
// Elsewhere rest is the group itself and tasks is nil.
func (g *Group) SplitTasks() (rest *Group, tasks *os.File, err error) {
	i := slices.IndexFunc(g.leaves, func(l leaf) bool {
		return l.Version == 1 && len(l.Controllers) == 1 && l.has("pids")
	})
	if i < 0 {
		return g, nil, nil
	}
	tasks, err = os.OpenFile(filepath.Join(g.leaves[i].dir, "tasks"), os.O_WRONLY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("enter cgroup %s: %w", g.name, err)
	}
	split := *g
	split.leaves = slices.Delete(slices.Clone(g.leaves), i, i+1)
	return &split, tasks, nil
}

// Start calls clone, which starts a process and returns its pid, in such a way
// that the process is in the group from its first instruction on. On v2 clone
// gets the group's directory, for SysProcAttr.CgroupFD; it is nil elsewhere:
//
//	err := g.Start(func(cgroup *os.File) (pid int, err error) {
//		attr := &syscall.SysProcAttr{}
//		if cgroup != nil {
//			attr.UseCgroupFD, attr.CgroupFD = true, int(cgroup.Fd())
//		}
//		return syscall.ForkExec(exe, args, &syscall.ProcAttr{Sys: attr})
//	})
//
// On v1 the calling thread itself steps into the group, clones, and steps back:
// a child is born where its parent thread is. A thread that writes "0" to
// "tasks" moves alone, and the kernel then spares itself the grace period that
// Add may wait for (commit 9a3284fad42f, Linux 5.5; before that the thread
// waits as Add does). Measured cold, four hierarchies: 0.14 ms there and 0.07
// ms back, where Add takes 5 to 16 ms. What cannot be had either way is done by
// Add after clone.
//
// Where the kernel cannot do what clone asks for with the directory, clone is
// called once more without. Its error is returned as it is. With any other
// error the process may exist: clone has told its caller the pid.
func (g *Group) Start(clone func(cgroup *os.File) (pid int, err error)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := g.DirFD()
	if err != nil {
		return fmt.Errorf("start a process in cgroup %s: %w", g.name, err)
	}
	if fd != nil {
		defer fd.Close()
	}
	back, outside, err := g.enter()
	if err != nil {
		return fmt.Errorf("start a process in cgroup %s: %w", g.name, errors.Join(err, leave(back)))
	}
	pid, err := clone(fd)
	if fd != nil && (errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.E2BIG)) {
		// Before Linux 5.7, or a seccomp filter that knows no clone3.
		outside = append(outside, g.v2Leaves()...)
		pid, err = clone(nil)
	}
	if backErr := leave(back); backErr != nil {
		return fmt.Errorf("start a process in cgroup %s: leave it: %w", g.name, errors.Join(backErr, err))
	}
	if err != nil {
		return err
	}
	for _, l := range outside {
		if err := put(filepath.Join(l.dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("start pid %d in cgroup %s: %w", pid, g.name, err)
		}
	}
	return nil
}

func (g *Group) v2Leaves() []leaf {
	var all []leaf
	for _, l := range g.leaves {
		if l.Version == 2 {
			all = append(all, l)
		}
	}
	return all
}

// enter moves the calling thread, which is locked, into the group's v1
// directories. back are the files that bring it back; outside are the
// directories which it could not step into.
func (g *Group) enter() (back []string, outside []leaf, err error) {
	own, err := cgroupsOf(0)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range g.leaves {
		if l.Version == 2 {
			continue
		}
		from, err := l.ownIn(own)
		if err != nil || g.single && l.has("pids") {
			outside = append(outside, l)
			continue
		}
		back = append(back, filepath.Join(from, "tasks"))
		if err := put(filepath.Join(l.dir, "tasks"), "0"); err != nil {
			return back, outside, err
		}
	}
	return back, outside, nil
}

// leave brings the thread back. Where that fails it must not go on to serve
// other goroutines: it would be frozen and killed with the container.
func leave(back []string) error {
	var failed error
	for _, tasks := range back {
		failed = errors.Join(failed, put(tasks, "0"))
	}
	if failed != nil {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
	}
	return failed
}
