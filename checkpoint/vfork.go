package checkpoint

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// A parent in vfork(2) sleeps until its child has executed a program, and
// notices neither signals nor ptrace(2) meanwhile (wait_for_vfork_done in
// kernel/fork.c). Frozen together the child cannot get there, and CRIU waits for
// the parent until its time is up ("Unseizable non-zombie",
// compel/src/lib/infect.c). Shells, posix_spawn(3) and Go's os/exec start
// programs in this way: one of a hundred checkpoints of a shell's loop meets it.

// VforkError says that a container was frozen in the middle of a vfork.
type VforkError struct{ Pid int }

func (e *VforkError) Error() string {
	return fmt.Sprintf("pid %d waits for its child to execute a program (vfork), and cannot be stopped there", e.Pid)
}

// Hint says what to do about it.
func (e *VforkError) Hint() string {
	return "let the container run (`crucible thaw`) and try again once the child has executed its program"
}

// freezeApart freezes the container, at a moment when no task is in a vfork.
func (d *dump) freezeApart(ctx context.Context, limit time.Duration) error {
	end := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 5*time.Millisecond) {
		d.frozenAt = time.Now()
		if _, err := d.group.Freeze(ctx, limit); err != nil {
			return err
		}
		stuck := d.vforking()
		if stuck == nil {
			return nil
		}
		if err := d.group.Thaw(ctx); err != nil {
			return err
		}
		d.frozenAt = time.Time{}
		if time.Now().After(end) {
			return stuck
		}
		select {
		case <-time.After(pause): // the kernel tells nobody of an execve
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// vforking looks for a task of the frozen container that is in a vfork.
func (d *dump) vforking() error {
	pids, err := d.group.Pids()
	if err != nil {
		return err
	}
	if parent := vforking(proc.Root, pids); parent != 0 {
		return &VforkError{parent}
	}
	return nil
}

// vforking returns a process that waits for a child, or 0.
func vforking(fs proc.FS, pids []int) int {
	const notExecuted = 0x40 // PF_FORKNOEXEC of include/linux/sched.h
	if len(pids) < 2 {
		return 0
	}
	for _, pid := range pids {
		child, err := fs.Stat(pid)
		if err != nil || child.Flags&notExecuted == 0 {
			continue
		}
		dir := string(fs) + "/" + strconv.Itoa(child.PPID) + "/task"
		threads, _ := os.ReadDir(dir)
		for _, t := range threads {
			text, err := os.ReadFile(dir + "/" + t.Name() + "/syscall")
			if err == nil && isVfork(string(text)) {
				return child.PPID
			}
		}
	}
	return 0
}

// isVfork says whether /proc/PID/syscall shows a call that may wait for a
// child: its number and its arguments (proc_pid_syscall(5)).
func isVfork(text string) bool {
	f := strings.Fields(text)
	if len(f) < 2 {
		return false // "running", "-1 ..." has three
	}
	number, err := strconv.Atoi(f[0])
	if err != nil {
		return false
	}
	switch number {
	case vforkNumber(), unix.SYS_CLONE3: // whose flags are in its memory
		return true
	case unix.SYS_CLONE:
		flags, err := strconv.ParseUint(f[1], 0, 64)
		return err == nil && flags&unix.CLONE_VFORK != 0
	}
	return false
}

// vforkNumber is SYS_VFORK, which younger architectures do not have.
func vforkNumber() int {
	switch runtime.GOARCH {
	case "amd64":
		return 58
	case "386", "arm":
		return 190
	}
	return -2
}
