package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
)

// Serve is the rest of the monitor's life: it copies output, answers on its
// socket, waits for the container's end, takes down what is left and records
// the exit status, which it returns. Cancelling ctx does not end the container.
func (m *Monitor) Serve(ctx context.Context) (int, error) {
	m.stdio.run()
	if m.control != nil {
		go m.control.serve(m)
	}
	var status unix.WaitStatus
	err := m.wait(&status)
	code := UnknownExit
	if err == nil {
		code = exitCode(status)
	}
	return code, m.finish(code)
}

// wait waits for the container's init. A monitor of its own is also the parent
// of whatever brought the container up (CRIU's loader of lazy pages), and buries
// it on the way.
func (m *Monitor) wait(status *unix.WaitStatus) error {
	for {
		pid := m.pid
		if m.detached {
			pid = -1
		}
		got, err := retry(func() (int, error) { return unix.Wait4(pid, status, 0, nil) })
		if err != nil || got == m.pid {
			return err
		}
		if got != m.loader {
			continue
		}
		m.loader = 0
		m.dropLoading()
		if *status != 0 {
			fmt.Fprintf(os.Stderr, "monitor: the loader of its memory failed (%s): the container is ended\n", describe(*status))
			_ = unix.Kill(m.pid, unix.SIGKILL)
		}
	}
}

func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return unix.SignalName(s.Signal())
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}

// exitCode is the shell's: what the program returned, or 128 + signal.
func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// finish takes down what the container leaves behind. Each part is tried
// whatever became of the others.
func (m *Monitor) finish(code int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var errs []error
	m.leaveNetwork()
	m.endLoader()
	starved := false
	if m.group != nil {
		group, err := m.group.Again()
		if err != nil {
			group = m.group
		}
		starved = code != 0 && outOfMemory(group)
		errs = append(errs, group.Kill(ctx), group.Remove(ctx))
	}
	m.stdio.drain()
	parked := m.control.parked()
	if err := m.c.Reload(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if a := m.c.State.Attachment; a != nil {
		errs = append(errs, m.OnHost(func() error { return a.Detach(ctx) }))
	}
	remove := m.c.State.Remove && parked == nil
	if !remove || m.detached { // in the foreground nobody else waits for the exit status
		errs = append(errs, m.c.Update(func(s *State) {
			s.Recorded, s.ExitStatus, s.Finished = Stopped, &code, time.Now()
			s.Attachment, s.OOMKilled = nil, starved
		}))
	}
	m.control.ended(code)
	m.unmount()
	if remove {
		errs = append(errs, m.c.remove())
	}
	if parked != nil {
		parked.wait(m)
	}
	m.control.close()
	m.stdio.close()
	m.sweep(ctx)
	return errors.Join(errs...)
}

// endLoader ends what would bring a container memory that is no more, and holds
// the image. CRIU's does not end on SIGTERM.
func (m *Monitor) endLoader() {
	if m.loader == 0 {
		return
	}
	var status unix.WaitStatus
	if unix.Kill(m.loader, unix.SIGKILL) == nil {
		_, _ = retry(func() (int, error) { return unix.Wait4(m.loader, &status, 0, nil) })
	}
	m.loader = 0
	m.dropLoading()
}

// dropLoading deletes what only the loader needed. What it leaves, the sweep of
// the store of images deletes.
func (m *Monitor) dropLoading() {
	if m.loading != "" {
		_ = os.RemoveAll(m.loading)
		m.loading = ""
	}
}

// outOfMemory says whether the kernel has killed a task of the group because
// the group was at its limit.
func outOfMemory(g *cgroup.Group) bool {
	s, err := g.Stats()
	return err == nil && s.Memory != nil && s.Memory.OOMKills > 0
}

// unmount takes the root filesystem out of the monitor's mount namespace: the
// directory that it is mounted on is to be deleted, and may not stay busy.
func (m *Monitor) unmount() {
	apart, _ := os.ReadDir(m.c.path("mounts")) // there after a restore only
	for _, e := range apart {
		_ = unix.Unmount(filepath.Join(m.c.path("mounts"), e.Name()), unix.MNT_DETACH)
	}
	for _, dir := range []string{m.c.Rootfs(), m.c.Rootfs() + ".lower", m.c.Layer()} {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}

// remove deletes the container's directory, and CRIU's logs.
func (c *Container) remove() error {
	return errors.Join(c.removeDir(), os.RemoveAll(c.Root.Logs(c.Name)))
}

// removeDir deletes the container's directory. Without its state, which goes
// first, it is no container any more.
func (c *Container) removeDir() error {
	if err := ignoreMissing(os.Remove(c.path("state.json"))); err != nil {
		return err
	}
	return os.RemoveAll(c.Dir)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
