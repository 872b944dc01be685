package workload

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func processCases() []Case {
	return []Case{
		{Name: "process-tree", Question: "Do parents and children find each other again?", program: processTree},
		{Name: "sessions-groups", Question: "Do sessions and process groups come back, also one that has lost its leader?", program: sessionsGroups},
		{Name: "orphan", Question: "Does a process whose parent and session leader have ended survive?", program: orphan},
		{Name: "zombie", Question: "Can the exit status of a child that ended before the checkpoint be read after the restore?", program: zombie},
		{Name: "stopped-process", Question: "Is a process that was stopped by a signal still stopped, and does it continue?", program: stoppedProcess},
		{Name: "threads", Question: "Do threads keep their numbers, names and what they were doing?", program: threads},
		{Name: "shared-descriptors", Question: "Do two processes that share a table of descriptors still share it?", program: sharedDescriptors},
	}
}

// tree is every process with its parent, group and session.
func tree() (string, error) {
	pids, err := processes()
	if err != nil {
		return "", err
	}
	out := ""
	for _, pid := range pids {
		f, err := statFields(pid)
		if err != nil {
			return "", err
		}
		state := f[0]
		if state == "R" || state == "D" {
			state = "S"
		}
		out += fmt.Sprintf("process %d state %s parent %s group %s session %s\n", pid, state, f[1], f[2], f[3])
	}
	return out, nil
}

func processTree() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	leaf := func() { l.tell(0); pause() }
	branch := func() { _, _ = fork(leaf); _, _ = fork(leaf); l.tell(0); pause() }
	for _, f := range []func(){leaf, branch, branch} {
		if _, err := fork(f); err != nil {
			return nil, err
		}
	}
	if err := l.answers(7); err != nil {
		return nil, err
	}
	return unchanged(tree)
}

func setsid() { unix.RawSyscall(unix.SYS_SETSID, 0, 0, 0) }

func setpgid() { unix.RawSyscall(unix.SYS_SETPGID, 0, 0, 0) }

// reap waits in a forked child for a child of its own.
func reap(pid int) { unix.RawSyscall6(unix.SYS_WAIT4, uintptr(pid), 0, 0, 0, 0, 0) }

func sessionsGroups() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	member := func() { l.tell(0); pause() }
	leader := func() { setpgid(); _, _ = fork(member); l.tell(0); pause() }
	gone := func() { setpgid(); _, _ = fork(member) }
	session := func() {
		setsid()
		_, _ = fork(member)
		_, _ = fork(leader)
		lost, _ := fork(gone)
		reap(lost)
		l.tell(0)
		pause()
	}
	if _, err := fork(session); err != nil {
		return nil, err
	}
	if err := l.answers(5); err != nil {
		return nil, err
	}
	return unchanged(tree)
}

func orphan() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	parent, err := fork(func() {
		setsid()
		_, _ = fork(func() { l.tell(0); pause() })
	})
	if err != nil {
		return nil, err
	}
	if err := first(ended(parent, 0), l.answers(1)); err != nil {
		return nil, err
	}
	return unchanged(tree)
}

func zombie() (func() error, error) {
	exited, err := fork(func() { exit(7) })
	if err != nil {
		return nil, err
	}
	killed, err := fork(pause)
	if err != nil {
		return nil, err
	}
	if err := unix.Kill(killed, unix.SIGKILL); err != nil {
		return nil, err
	}
	for _, pid := range []int{exited, killed} {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			return nil, fmt.Errorf("waitid: %w", err)
		}
	}
	return func() error {
		if err := ended(exited, 7); err != nil {
			return err
		}
		var s unix.WaitStatus
		if _, err := unix.Wait4(killed, &s, 0, nil); err != nil {
			return fmt.Errorf("wait for the killed child: %w", err)
		}
		return same("signal that killed the child", s.Signal(), unix.SIGKILL)
	}, nil
}

func stoppedProcess() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	pid, err := fork(func() { exit(int(l.hear())) })
	if err != nil {
		return nil, err
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return nil, err
	}
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		return nil, fmt.Errorf("waitid: %w", err)
	}
	return func() error {
		f, err := statFields(pid)
		if err != nil {
			return err
		}
		return first(same("state", f[0], "T"), unix.Kill(pid, unix.SIGCONT), send(l.down[1], []byte{9}), ended(pid, 9))
	}, nil
}

func threads() (func() error, error) {
	const count = 4
	var ask [count]chan struct{}
	answers := make(chan error)
	for i := range ask {
		ask[i] = make(chan struct{})
		go func() {
			runtime.LockOSThread()
			name := fmt.Sprintf("thread-%d\x00", i)
			b := []byte(name)
			tid := unix.Gettid()
			answers <- unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
			<-ask[i]
			comm, err := os.ReadFile("/proc/thread-self/comm")
			answers <- first(err, same("thread's number", unix.Gettid(), tid), same("thread's name", string(comm), name[:len(name)-1]+"\n"))
		}()
		if err := <-answers; err != nil {
			return nil, err
		}
	}
	return func() error {
		for _, c := range ask {
			close(c)
			if err := <-answers; err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// sharedDescriptors has a child that shares our table (CLONE_FILES): what it
// opens after the restore, we can read.
func sharedDescriptors() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	path := []byte("/etc\x00")
	pid, err := clone(unix.CLONE_FILES, func() {
		l.tell(0)
		for {
			l.hear()
			fd, _, _ := unix.RawSyscall6(unix.SYS_OPENAT, 0, uintptr(unsafe.Pointer(&path[0])), unix.O_RDONLY, 0, 0, 0)
			l.tell(byte(fd))
		}
	})
	if err != nil {
		return nil, err
	}
	if err := l.answers(1); err != nil {
		return nil, err
	}
	return func() error {
		fd, err := l.ask(1)
		if err != nil {
			return err
		}
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			return fmt.Errorf("descriptor %d of process %d is not ours: %w", fd, pid, err)
		}
		return same("what the other has opened", target, "/etc")
	}, nil
}
