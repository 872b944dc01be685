package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/name"
	"crucible/container/network"
)

// CreateOptions are what a bundle does not say.
type CreateOptions struct {
	Net    network.Config
	Remove bool // delete the container when it stops
	// Foreground: Run comes next, in this process.
	Foreground bool
}

// Create makes the directory of a new container. Nothing runs yet: Run or
// Launch comes next. An existing name is an *ExistsError.
func (r Root) Create(containerName string, spec *specs.Spec, o CreateOptions) (*Container, error) {
	if err := name.ValidName(containerName); err != nil {
		return nil, err
	}
	if err := Validate(spec); err != nil {
		return nil, err
	}
	c := &Container{Root: r, Name: containerName, Dir: r.dir(containerName)}
	c.State = State{Name: containerName, Recorded: Stopped, Created: time.Now(), Remove: o.Remove, Net: o.Net, Boot: bootID(), Maker: Self()}
	if o.Foreground {
		c.State.Starting, c.State.Monitor = true, c.State.Maker
	}
	if err := c.create(spec); err != nil {
		var exists *ExistsError
		if errors.As(err, &exists) {
			return nil, err
		}
		return nil, fmt.Errorf("create container %s: %w", containerName, err)
	}
	return c, nil
}

// create fills a directory under another name and gives it its own at the end:
// there is a whole container, or none.
func (c *Container) create(spec *specs.Spec) error {
	if err := os.MkdirAll(c.Root.containers(), 0o711); err != nil {
		return err
	}
	config, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	state, err := json.Marshal(c.State)
	if err != nil {
		return err
	}
	if err := c.Root.Sweep(); err != nil {
		return err
	}
	draft := c.Root.draft(c.Name)
	if err := os.Mkdir(draft, 0o711); err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(draft, "config.json"), config, 0o600),
		os.WriteFile(filepath.Join(draft, "state.json"), state, 0o600))
	if err == nil {
		err = c.publish(draft)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(draft))
	}
	return nil
}

// publish gives the draft of a container's directory its name. One without a
// state is what is left of a container whose deletion was interrupted.
func (c *Container) publish(draft string) error {
	rename := func() error {
		return unix.Renameat2(unix.AT_FDCWD, draft, unix.AT_FDCWD, c.Dir, unix.RENAME_NOREPLACE)
	}
	err := rename()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if _, err := os.Lstat(c.path("state.json")); !errors.Is(err, os.ErrNotExist) {
		return &ExistsError{Name: c.Name}
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return err
	}
	return rename()
}

// SetConfig changes what a stopped container is started or restored from.
func (c *Container) SetConfig(config []byte) error {
	old, err := os.ReadFile(c.path("config.json"))
	if err == nil && bytes.Equal(old, config) {
		return nil
	}
	return writeFile(c.path("config.json"), config)
}

// Run starts the container as a child of the calling process and serves it
// until its end, whose exit status it returns. The calling goroutine's thread
// stays in the container's namespaces. Output that could not be written is an
// *OutputError, which the caller may get only if it ignores SIGPIPE.
func (c *Container) Run(ctx context.Context, output Output, started func(*Monitor)) (int, error) {
	m, err := NewMonitor(c, output)
	if err != nil {
		return 0, err
	}
	if output.Stdout != nil {
		m.tap = m.fileTap(output.Stdout, output.Stderr)
	}
	if err := m.Start(ctx, false); err != nil {
		m.Abort()
		return 0, startError(c.Name, err)
	}
	fd, err := unix.PidfdOpen(m.pid, 0)
	if err == nil {
		m.init = os.NewFile(uintptr(fd), "init")
		defer m.init.Close()
	}
	started(m)
	code, err := m.Serve(ctx)
	if err == nil && m.lost != nil {
		err = m.lost
	}
	return code, err
}

// Start lets a created container's program start, or starts a stopped
// container once more, detached.
func (c *Container) Start(ctx context.Context) error {
	status, err := c.Require("start", Created, Stopped)
	if err != nil {
		return err
	}
	if status == Stopped {
		return c.Launch(ctx, false, false)
	}
	conn, r, err := c.dial(request{Op: opStart})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := hearReply(r); err != nil {
		return &StartError{Name: c.Name, Err: err}
	}
	return c.Reload()
}

// Launch brings the container up under a detached monitor: up to its program's
// start, or with wait up to just before it.
func (c *Container) Launch(ctx context.Context, wait, input bool) error {
	if err := c.Spawn(ctx, "start", startArgs{Wait: wait, Input: input}, nil); err != nil {
		return startError(c.Name, err)
	}
	return c.Reload()
}

// Freeze stops every task of the container by the freezer cgroup and returns
// how long that took.
func (c *Container) Freeze(ctx context.Context, deadline time.Duration) (time.Duration, error) {
	if _, err := c.Require("freeze", Running); err != nil {
		return 0, err
	}
	g, err := c.Group()
	if err != nil {
		return 0, err
	}
	return g.Freeze(ctx, deadline)
}

// Thaw continues a frozen container.
func (c *Container) Thaw(ctx context.Context) error {
	if _, err := c.Require("thaw", Frozen); err != nil {
		return err
	}
	g, err := c.Group()
	if err != nil {
		return err
	}
	return g.Thaw(ctx)
}

// Kill sends a signal to the container's init, or with all to each of its
// tasks. A frozen container is thawed by SIGKILL only.
func (c *Container) Kill(ctx context.Context, sig unix.Signal, all bool) error {
	status, err := c.Require("kill", Created, Running, Frozen)
	if err != nil {
		return err
	}
	g, err := c.Group()
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL && (all || status == Frozen) {
		return g.Kill(ctx)
	}
	pids := []int{c.State.Init.Pid}
	if all {
		if pids, err = g.Pids(); err != nil {
			return err
		}
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill container %s: signal %s to pid %d: %w", c.Name, unix.SignalName(sig), pid, err)
		}
	}
	return nil
}

// Stop asks the container's init to end by SIGTERM, and kills all of the
// container when it has not ended within grace. An init that does not handle
// SIGTERM would never see it (pid_namespaces(7)) and is killed at once.
func (c *Container) Stop(ctx context.Context, grace time.Duration) (int, error) {
	status, err := c.Status()
	if err != nil || status == Stopped {
		return c.exitStatus(), err
	}
	if grace > 0 && status == Running && handles(c.State.Init.Pid, unix.SIGTERM) {
		if err := c.Kill(ctx, unix.SIGTERM, false); err != nil {
			return 0, err
		}
		limited, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		code, err := c.Wait(limited)
		if err == nil || ctx.Err() != nil {
			return code, err
		}
	}
	if err := c.Kill(ctx, unix.SIGKILL, true); err != nil && !isStopped(err) {
		return 0, err
	}
	return c.Wait(ctx)
}

func isStopped(err error) bool {
	var s *StateError
	return errors.As(err, &s) && s.Is == Stopped
}

func (c *Container) exitStatus() int {
	if c.State.ExitStatus == nil {
		return UnknownExit
	}
	return *c.State.ExitStatus
}

// Wait blocks until the container has stopped and its monitor has recorded the
// exit status, which it returns. The monitor itself may live on for a while, to
// keep what was sent to a container that is coming back.
func (c *Container) Wait(ctx context.Context) (int, error) {
	if err := c.waitForEnd(ctx); err != nil {
		return 0, fmt.Errorf("wait for container %s: %w", c.Name, err)
	}
	var gone *NotFoundError
	if again, err := c.Root.Open(c.Name); errors.As(err, &gone) {
		return UnknownExit, nil // deleted, and nobody asked in time
	} else if err != nil {
		return 0, err
	} else {
		c.State = again.State
	}
	return c.exitStatus(), nil
}

func (c *Container) waitForEnd(ctx context.Context) error {
	if c.State.Recorded == Stopped {
		return nil
	}
	conn, r, err := c.dial(request{Op: opWait})
	if err != nil {
		// No monitor: what is left are the processes.
		return errors.Join(waitProcess(ctx, c.State.Init), waitProcess(ctx, c.State.Monitor))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := hearReply(r); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// The monitor was killed before it could answer.
		return waitProcess(ctx, c.State.Init)
	}
	return nil
}

// DeleteOptions say what Delete does.
type DeleteOptions struct {
	Force    bool // stop it first
	KeepLogs bool // leave what CRIU wrote, see [Root.Logs]
}

// Delete removes a stopped container and all it kept; its images stay.
func (c *Container) Delete(ctx context.Context, o DeleteOptions) error {
	if err := c.Reload(); err != nil {
		return err
	}
	status, err := c.Status()
	if err != nil {
		return err
	}
	if s := c.State; status == Stopped && s.Starting && s.Boot == bootID() && s.Monitor.Alive() {
		return &StateError{Op: "delete", Name: c.Name, Is: Starting, Want: []Status{Stopped}}
	}
	if status != Stopped {
		if !o.Force {
			return &StateError{Op: "delete", Name: c.Name, Is: status, Want: []Status{Stopped}}
		}
		if _, err := c.Stop(ctx, 0); err != nil {
			return err
		}
		if err := c.Reload(); errors.Is(err, os.ErrNotExist) {
			return nil // its monitor has done so
		}
	}
	if err := c.dropParked(ctx); err != nil {
		return err
	}
	var gone *NotFoundError
	if err := c.Recover(ctx); errors.As(err, &gone) {
		return nil // it was to be deleted anyway
	} else if err != nil {
		return err
	}
	if c.State.Starting && !c.State.Monitor.Alive() { // its maker, whom Recover leaves that to, is who deletes it
		if err := c.takeDown(ctx); err != nil {
			return err
		}
	}
	if err := c.awaitSweep(ctx); err != nil {
		return err
	}
	if o.KeepLogs {
		return c.removeDir()
	}
	return c.remove()
}

// awaitSweep waits until the network of a stopped container is taken down:
// whoever deletes the last container expects nothing to be left of it, and may
// delete the root next, without which nobody could sweep.
func (c *Container) awaitSweep(ctx context.Context) error {
	if c.State.Net.Mode != network.ModeBridge {
		return nil
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if c.State.Monitor != Self() {
		_ = waitProcess(limited, c.State.Monitor) // it sweeps; if it cannot, we do
	}
	if err := network.Forget(limited, string(c.Root), c.Name); err != nil {
		return err
	}
	_, err := network.Sweep(limited, string(c.Root))
	return err
}

// dropParked forgets the frames that wait for a container which nobody is going
// to restore. It may have been what kept the bridge; the former monitor, which
// sweeps when it ends, may do so too early.
func (c *Container) dropParked(ctx context.Context) error {
	p, err := c.TakeParked()
	if p == nil || err != nil {
		return err
	}
	err = p.Stop(ctx)
	p.Close()
	_, sweepErr := network.Sweep(ctx, string(c.Root))
	return errors.Join(err, sweepErr)
}

// SetLimits changes the limits of a container, and those with which it would
// start again.
func (c *Container) SetLimits(ctx context.Context, r *specs.LinuxResources) error {
	if _, err := c.Require("update", Created, Running, Frozen); err != nil {
		return err
	}
	g, err := c.Group()
	if err != nil {
		return err
	}
	if err := g.Update(r); err != nil {
		return err
	}
	if !c.State.Init.Alive() {
		// It has ended meanwhile, and its monitor may have looked before the
		// group joined what it was not in.
		return g.Remove(ctx)
	}
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	if spec.Linux.Resources == nil {
		spec.Linux.Resources = &specs.LinuxResources{}
	}
	kept := spec.Linux.Resources
	if r.Memory != nil {
		kept.Memory = r.Memory
	}
	if r.CPU != nil {
		kept.CPU = r.CPU
	}
	if r.Pids != nil {
		kept.Pids = r.Pids
	}
	config, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return writeFile(c.path("config.json"), config)
}
