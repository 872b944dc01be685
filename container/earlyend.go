package container

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
)

// endedEarly says how an init, our child, ended that never became the program;
// nil when it has become it. Either closes the init's socket. An execve(2) gives
// the process another name, though only after that (begin_new_exec in
// fs/exec.c); but what is on its way out (PF_EXITING of linux/sched.h) and
// still has the init's name will not get one any more.
func endedEarly(pid int) error {
	if comm, ending := isEnding(pid); !ending || comm != initName {
		return nil
	}
	return earlyEnd(pid)
}

func isEnding(pid int) (comm string, ending bool) {
	const exiting = 0x4
	comm, fields, err := processStat(pid)
	if err != nil {
		return "", false
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	return comm, err == nil && flags&exiting != 0
}

// earlyEnd is the error of an init that did not become the program for sure.
// Whoever waits for the child later finds it as it was.
func earlyEnd(pid int) error {
	failure := &InitError{Step: "execute the program", Text: "the init did not become the program", Kind: Ended}
	if _, ending := isEnding(pid); !ending {
		return failure // we have hung up
	}
	_, err := retry(func() (struct{}, error) {
		return struct{}{}, unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	})
	if err != nil {
		return failure
	}
	_, fields, err := processStat(pid)
	if err != nil || len(fields) < 50 {
		return failure
	}
	code, _ := strconv.Atoi(fields[49]) // exit_code, in the form of wait4(2)
	switch status := unix.WaitStatus(code); {
	case status.Signaled():
		failure.Text = fmt.Sprintf("the init was killed by %s before it became the program", unix.SignalName(status.Signal()))
	default:
		failure.Text = fmt.Sprintf("the init ended with status %d before it became the program", status.ExitStatus())
	}
	return failure
}

// roomToStart is how many tasks it takes for a moment to start a program: our
// runtime's threads.
const roomToStart = 8

// whyNotStarted finds what in the container's configuration may be why its
// program, or another one in it, could not be started.
func whyNotStarted(err error, name string, spec *specs.Spec, g *cgroup.Group) error {
	failure := &InitError{}
	isEnd := errors.As(err, &failure) && failure.Kind == Ended
	if !isEnd && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EPERM) {
		return err
	}
	if stats, statErr := g.Stats(); statErr == nil && stats.Pids != nil && !errors.Is(err, unix.EPERM) {
		if limit := stats.Pids.Limit; limit > 0 && limit < stats.Pids.Current+roomToStart {
			return &InitError{
				Step: "execute the program", Kind: Ended, Text: fmt.Sprintf("the container is at its limit of %d tasks", limit),
				Hint: fmt.Sprintf("to start a program takes %d tasks for a moment: see --pids, or `crucible update --pids %d %s`", roomToStart, stats.Pids.Current+roomToStart, name),
			}
		}
	}
	switch {
	case spec.Linux != nil && spec.Linux.Seccomp != nil && (isEnd || failure.Kind == NotExecutable):
		failure.Hint = "its seccomp profile must allow execve, and what the program does to start"
	case isEnd && spec.Linux != nil && spec.Linux.Resources != nil && spec.Linux.Resources.Memory != nil:
		failure.Hint = "its limit of memory may be too small to start a program: see --memory"
	}
	return err
}
