package workload

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crucible/checkpoint"
	"crucible/container"
	"crucible/restore"
)

func cgroupCases() []Case {
	all := []Case{
		{Name: "frozen-checkpoint", Question: "Can a container that is frozen already be checkpointed and restored?", program: plain, plot: frozenCheckpoint},
		{Name: "cgroup-limits", Question: "Do limits of memory, tasks and processor time, changed since the start, come back?",
			Needs:   []string{"controller/memory", "controller/pids", "controller/cpu"},
			define:  func(d *definition) { d.Memory, d.Pids, d.CPUs = 256<<20, 200, 1 },
			program: plain, plot: cgroupLimits},
		{Name: "cgroup-membership", Question: "Is every restored process in the container's cgroups?", program: cgroupMembership, plot: membership},
		{Name: "device-rules", Question: "Is a device that the container may not open still closed to it?", program: deviceRules},
	}
	for _, version := range []string{"v1", "v2"} {
		all = append(all, Case{Name: "freezer-" + version, Question: "Does a container stand still while cgroup " + version + " freezes it, and go on afterwards?",
			Needs: []string{"freezer/" + version}, program: beats, plot: freezeAndThaw})
	}
	return all
}

// beats counts in a file that is seen from outside.
func beats() (func() error, error) {
	f, err := os.Create("/tmp/beats")
	if err != nil {
		return nil, err
	}
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	fd := f.Fd()
	_, err = fork(func() {
		for first := true; ; first = false {
			if tell(int(fd), 'x'); first {
				l.tell(0)
			}
			nap := unix.NsecToTimespec(int64(time.Millisecond))
			rawNanosleep(&nap)
		}
	})
	if err != nil {
		return nil, err
	}
	return func() error { return nil }, l.answers(1)
}

func freezeAndThaw(ctx context.Context, s *stage) error {
	s.r.Step = StepCheckpoint
	count := func() (int64, error) {
		st, err := os.Stat(fmt.Sprintf("/proc/%d/root/tmp/beats", s.box.State.Init.Pid))
		if err != nil {
			return 0, err
		}
		return st.Size(), nil
	}
	if _, err := s.box.Freeze(ctx, 10*time.Second); err != nil {
		return err
	}
	if is, err := s.box.Status(); err != nil || is != container.Frozen {
		return fmt.Errorf("a frozen container is %q: %w", is, err)
	}
	before, err := count()
	if err != nil {
		return err
	}
	time.Sleep(20 * time.Millisecond) // there is no event for something that does not happen
	if now, err := count(); err != nil || now != before {
		return fmt.Errorf("a frozen program went on from %d to %d beats: %w", before, now, err)
	}
	if err := s.box.Thaw(ctx); err != nil {
		return err
	}
	for {
		now, err := count()
		if err != nil {
			return err
		}
		if now > before {
			return s.goOn(ctx)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("a thawed program does not go on from %d beats: %w", before, ctx.Err())
		}
		time.Sleep(time.Millisecond)
	}
}

func frozenCheckpoint(ctx context.Context, s *stage) error {
	s.r.Step = StepCheckpoint
	if _, err := s.box.Freeze(ctx, 10*time.Second); err != nil {
		return err
	}
	return once(ctx, s)
}

func cgroupLimits(ctx context.Context, s *stage) error {
	r, err := container.Resources(container.RunOptions{Memory: 128 << 20, Pids: 100, CPUs: 0.5})
	if err != nil {
		return err
	}
	if err := s.box.SetLimits(ctx, r); err != nil {
		return err
	}
	before, err := s.values()
	if err != nil {
		return err
	}
	if len(before) < 3 {
		return fmt.Errorf("there are %d limits: %v", len(before), before)
	}
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	s.r.Step = StepCheck
	if s.o.spoil != nil {
		if err := s.o.spoil(s.box); err != nil {
			return err
		}
	}
	after, err := s.values()
	if err != nil {
		return err
	}
	if !maps.Equal(before, after) {
		return fmt.Errorf("limits %v, before %v", after, before)
	}
	return s.goOn(ctx)
}

// values are the limits as the kernel has them.
func (s *stage) values() (map[string]string, error) {
	group, err := s.box.Group()
	if err != nil {
		return nil, err
	}
	return group.Values()
}

func cgroupMembership() (func() error, error) {
	for range 2 {
		if _, err := fork(pause); err != nil {
			return nil, err
		}
	}
	return func() error { return nil }, nil
}

func membership(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	s.r.Step = StepCheck
	group, err := s.box.Group()
	if err != nil {
		return err
	}
	pids, err := group.Pids()
	if err != nil {
		return err
	}
	if len(pids) != 3 {
		return fmt.Errorf("processes %v are in the cgroup, want 3", pids)
	}
	for controller, dir := range group.Paths() {
		text, err := os.ReadFile(dir + "/cgroup.procs")
		if err != nil {
			return err
		}
		in := strings.Fields(string(text))
		for _, pid := range pids {
			if !slices.Contains(in, fmt.Sprint(pid)) {
				return fmt.Errorf("process %d is not in the cgroup of %s, which has %v", pid, controller, in)
			}
		}
	}
	return s.goOn(ctx)
}

func deviceRules() (func() error, error) {
	const kernelLog = 1<<8 | 11 // /dev/kmsg
	if err := unix.Mknod("/srv/kmsg", unix.S_IFCHR|0o600, kernelLog); err != nil {
		return nil, fmt.Errorf("mknod: %w", err)
	}
	check := func() error {
		fd, err := unix.Open("/srv/kmsg", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return first(same("open /dev/kmsg", err, error(unix.EPERM)), openAndClose("/dev/null"))
	}
	return check, check()
}

func openAndClose(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return unix.Close(fd)
}
