package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/mount"
	"crucible/container/network"
)

// waitProcess blocks until the process is gone, or ctx is.
func waitProcess(ctx context.Context, p Process) error {
	if !p.Alive() {
		return nil
	}
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	if !p.Alive() {
		return nil // the pid was somebody else's already
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer func() {
		if stop() {
			w.Close()
		}
	}()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(r.Fd()), Events: unix.POLLIN}}
	if _, err := retry(func() (int, error) { return unix.Poll(fds, -1) }); err != nil {
		return os.NewSyscallError("poll", err)
	}
	if fds[0].Revents == 0 {
		return ctx.Err()
	}
	return nil
}

// AwaitLoader waits until all of the container's memory is there, after a lazy
// restore: what is still to come is not the container's yet, and would be
// missing from an image.
func (c *Container) AwaitLoader(ctx context.Context) error {
	if err := waitProcess(ctx, c.State.Loader); err != nil {
		return fmt.Errorf("wait for the memory of container %s, which is still being loaded: %w", c.Name, err)
	}
	return nil
}

// AwaitInit waits until the container's first process has ended, and with it
// all the others.
func (c *Container) AwaitInit(ctx context.Context) error { return waitProcess(ctx, c.State.Init) }

// handles tells whether a process has a handler for a signal (SigCgt of
// proc_pid_status(5)). When in doubt it does.
func handles(pid int, sig unix.Signal) bool {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return true
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if mask, ok := strings.CutPrefix(s.Text(), "SigCgt:"); ok {
			caught, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err != nil || caught&(1<<(uint(sig)-1)) != 0
		}
	}
	return true
}

// Handles tells whether the container's init would notice a signal: the first
// process of a pid namespace does not get those that it has no handler for,
// except SIGKILL and SIGSTOP (pid_namespaces(7)).
func (c *Container) Handles(sig unix.Signal) bool {
	return sig == unix.SIGKILL || sig == unix.SIGSTOP || handles(c.State.Init.Pid, sig)
}

// Recover takes down what a container leaves behind whose monitor was killed,
// and records that it has stopped. One that was to be deleted then is, and so is
// one that was never started and whose creator was killed: then the error is a
// *NotFoundError. Nothing happens while anybody who would do it is alive.
func (c *Container) Recover(ctx context.Context) error {
	s := c.State
	sameBoot := s.Boot == bootID()
	if sameBoot && (s.Monitor.Alive() || s.Maker.Alive() || s.Recorded != Stopped && s.Init.Alive()) {
		return nil
	}
	unwanted := s.Maker.Pid != 0
	if s.Recorded != Stopped || s.Starting {
		unwanted = unwanted || s.Remove
		if err := c.takeDown(ctx); err != nil {
			return fmt.Errorf("clean up after container %s: %w", c.Name, err)
		}
	}
	if !unwanted {
		return nil
	}
	if err := c.remove(); err != nil {
		return fmt.Errorf("clean up after container %s: %w", c.Name, err)
	}
	return &NotFoundError{Name: c.Name, Root: c.Root}
}

// takeDown removes cgroup, network and loader of a container without processes.
func (c *Container) takeDown(ctx context.Context) error {
	var errs []error
	if c.State.Loader.Alive() {
		_ = unix.Kill(c.State.Loader.Pid, unix.SIGKILL) // it ends by itself, too, when it has loaded all
	}
	if g, err := c.Group(); err == nil {
		errs = append(errs, g.Kill(ctx), g.Remove(ctx))
	}
	if a := c.State.Attachment; a != nil {
		errs = append(errs, a.Detach(ctx))
	}
	if c.State.Net.Mode == network.ModeBridge {
		_, err := network.Sweep(ctx, string(c.Root))
		errs = append(errs, err)
	}
	if c.State.Starting {
		errs = append(errs, c.bringLayerBack())
	} else {
		errs = append(errs, c.dropOldLayer())
	}
	code := UnknownExit
	errs = append(errs, c.Update(func(s *State) {
		if s.Recorded != Stopped {
			s.ExitStatus = &code
		}
		s.Recorded, s.Starting, s.Attachment = Stopped, false, nil
	}))
	return errors.Join(errs...)
}

// NetNS opens the container's network namespace; nil when it uses the host's.
func (c *Container) NetNS() (*os.File, error) {
	spec, err := c.Spec()
	if err != nil {
		return nil, err
	}
	n, err := namespacesOf(spec)
	if err != nil || !n.Net {
		return nil, err
	}
	return os.Open("/proc/" + strconv.Itoa(c.State.Init.Pid) + "/ns/net")
}

// OpenUpper opens the directory of the container's private layer. It is reached
// through the monitor, in whose mount namespace it may stand in memory. The
// namespace is a thread's; of a detached monitor, which executes itself anew
// right after the start, that thread then is the first and only one.
func (c *Container) OpenUpper() (*os.File, error) {
	process := "/proc/" + strconv.Itoa(c.State.Monitor.Pid)
	var err error
	for _, who := range []string{"/task/" + strconv.Itoa(c.State.MonitorThread), ""} {
		var f *os.File
		f, err = os.OpenFile(process+who+"/root"+c.Layer()+"/upper", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			return f, nil
		}
	}
	return nil, fmt.Errorf("open the layer of container %s: %w", c.Name, err)
}

// oldLayer is where the layer of a stopped container is while another one,
// from an image, takes its place.
func (c *Container) oldLayer() string { return c.path("layer.old") }

// SetLayerAside makes room for another layer. It is for good once the container
// runs; Abort, or the next command after a monitor that was killed, undoes it.
func (m *Monitor) SetLayerAside() error {
	if err := m.c.dropOldLayer(); err != nil {
		return err
	}
	if err := ignoreMissing(os.Rename(m.c.Layer(), m.c.oldLayer())); err != nil {
		return fmt.Errorf("set the layer of container %s aside: %w", m.c.Name, err)
	}
	return nil
}

// bringLayerBack gives a container that was not restored its own layer again.
func (c *Container) bringLayerBack() error {
	if _, err := os.Lstat(c.oldLayer()); err != nil {
		return ignoreMissing(err)
	}
	if err := os.RemoveAll(c.Layer()); err != nil {
		return err
	}
	return os.Rename(c.oldLayer(), c.Layer())
}

func (c *Container) dropOldLayer() error { return os.RemoveAll(c.oldLayer()) }

// RootDir opens the container's root directory as its processes see it.
func (c *Container) RootDir() (*os.File, error) {
	return os.OpenFile("/proc/"+strconv.Itoa(c.State.Init.Pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// Mounts are the container's mounts as its bundle names them.
func Mounts(spec *specs.Spec) ([]mount.Mount, error) { return mountsOf(spec) }
