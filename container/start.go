package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/confine"
	"crucible/container/confine/seccomp"
	"crucible/container/host"
	"crucible/container/mount"
)

// StartError names the container that could not be started.
type StartError struct {
	Name string
	Err  error
}

func (e *StartError) Error() string { return fmt.Sprintf("start container %s: %v", e.Name, e.Err) }
func (e *StartError) Unwrap() error { return e.Err }

// startError makes a StartError of an error that names no container.
func startError(name string, err error) error {
	var start *StartError
	var monitor *MonitorError
	if errors.As(err, &start) || errors.As(err, &monitor) {
		return err
	}
	return &StartError{Name: name, Err: err}
}

// begin clones the container's init, which then waits for what it is to do.
// The group must exist.
func (m *Monitor) begin() error {
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	m.initEnd, m.undo = ours, append(m.undo, func() { ours.Close() })
	m.socket = int(ours.Fd())
	exe, err := confine.SealedSelf()
	if err != nil {
		return err
	}
	defer exe.Close()
	group, tasks, err := splitTasks(m.spec, m.group)
	if err != nil {
		return err
	}
	m.tasks, m.undo = tasks, append(m.undo, func() { tasks.Close() })
	err = group.Start(func(group *os.File) (int, error) {
		pid, err := m.clone(exe, theirs, group)
		m.pid = pid
		return pid, err
	})
	if err != nil {
		return whyNotStarted(fmt.Errorf("clone the init of container %s: %w", m.c.Name, err), m.c.Name, m.spec, m.group)
	}
	return nil
}

// splitTasks leaves the limit of tasks out of what the init is born in, so that
// it binds the program alone. Not in a user namespace: before Linux 5.17 the
// kernel asks for the rights of who writes to the file, not of who opened it
// (commit 1756d7994ad8).
func splitTasks(spec *specs.Spec, g *cgroup.Group) (rest *cgroup.Group, tasks *os.File, err error) {
	if ns, err := namespacesOf(spec); err != nil || ns.User {
		return g, nil, err
	}
	return g.SplitTasks()
}

// Start prepares the container and has its init execute the program. With wait
// it stops short of the program until Go is called.
//
// The init is cloned first, so that its runtime starts while we mount: it makes
// its mount namespace, a copy of ours, when it is told that all is there. In a
// user namespace that is not possible: a mount namespace belongs to the user
// namespace that its maker is in, and the init would not be allowed to copy ours.
func (m *Monitor) Start(ctx context.Context, wait bool) error {
	if m.ns.Time {
		if err := host.EntersTime(); err != nil {
			return fmt.Errorf("start container %s: %w", m.c.Name, err)
		}
	}
	if err := m.makeGroup(); err != nil {
		return err
	}
	if !m.ns.User {
		if err := m.begin(); err != nil {
			return err
		}
	}
	if err := m.Prepare(ctx, PrepareOptions{}); err != nil {
		return err
	}
	if m.ns.User {
		if err := m.begin(); err != nil {
			return err
		}
	}
	config, err := m.initConfig(wait)
	if err != nil {
		return err
	}
	if err := sendConfig(m.socket, m.pid, config, m.net, m.tasks); err != nil {
		return whyNotStarted(err, m.c.Name, m.spec, m.group)
	}
	// A cancelled command must not wait for an init that hangs.
	stop := context.AfterFunc(ctx, func() { _ = unix.Shutdown(m.socket, unix.SHUT_RDWR) })
	defer stop()
	// The init is busy for a while: time to open the socket.
	listened := m.Listen()
	if err := m.hear(wait); err != nil {
		return errors.Join(&StartError{Name: m.c.Name, Err: err}, ctx.Err())
	}
	return errors.Join(listened, m.record(wait))
}

// clone starts ourselves as the init, in new namespaces. The calling thread
// stands in the namespaces that the monitor made for it.
func (m *Monitor) clone(exe, socket, group *os.File) (int, error) {
	attr := &syscall.SysProcAttr{Cloneflags: m.ns.cloneFlags()}
	if group != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(group.Fd())
	}
	if m.ns.User {
		l := m.spec.Linux
		attr.UidMappings, attr.GidMappings = sysMaps(l.UIDMappings), sysMaps(l.GIDMappings)
		attr.GidMappingsEnableSetgroups = true
		attr.Credential = &syscall.Credential{}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	// The init is short-lived and does one thing at a time: no second
	// processor, no garbage collection.
	return syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(int(exe.Fd())), []string{initName}, &syscall.ProcAttr{
		Env:   []string{"GOMAXPROCS=1", "GOGC=off"},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), socket.Fd()},
		Sys:   attr,
	})
}

func sysMaps(maps []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(maps))
	for i, m := range maps {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)}
	}
	return out
}

// InitPlan lists what the container's init will do, a line each as a person
// would type it.
func InitPlan(spec *specs.Spec) ([]string, error) {
	c, err := newInitConfig(spec, "ROOT")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, s := range insidePlan(c) {
		lines = append(lines, s.Show)
	}
	return lines, nil
}

func newInitConfig(spec *specs.Spec, root string) (*initConfig, error) {
	ns, err := namespacesOf(spec)
	if err != nil {
		return nil, err
	}
	mounts, err := mountsOf(spec)
	if err != nil {
		return nil, err
	}
	l := spec.Linux
	c := &initConfig{
		Root: root, Namespaces: ns, Hostname: spec.Hostname, Domainname: spec.Domainname,
		Masked: l.MaskedPaths, ReadOnly: l.ReadonlyPaths, Sysctls: l.Sysctl, Process: spec.Process,
	}
	if ns.User {
		_, c.Sysctls = confine.SplitSysctls(l.Sysctl)
	}
	for _, m := range mounts {
		if m.Inside() {
			c.Mounts = append(c.Mounts, withUsers(m, ns))
		}
	}
	for clock, o := range l.TimeOffsets {
		c.TimeOffsets += fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	if l.Seccomp != nil {
		if c.Seccomp, err = seccomp.Compile(l.Seccomp); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// outsideSysctls are those that the monitor sets: a user namespace has no rights
// over the network namespace, which is made outside of it.
func outsideSysctls(spec *specs.Spec) map[string]string {
	ns, err := namespacesOf(spec)
	if err != nil || !ns.User {
		return nil
	}
	network, _ := confine.SplitSysctls(spec.Linux.Sysctl)
	return network
}

// withUsers leaves out what a user namespace cannot ask of devpts: a gid that
// it does not map.
func withUsers(m mount.Mount, ns namespaces) mount.Mount {
	if m.Type != "devpts" || !ns.User {
		return m
	}
	var keep []string
	for _, o := range strings.Split(m.Data, ",") {
		if !strings.HasPrefix(o, "gid=") {
			keep = append(keep, o)
		}
	}
	m.Data = strings.Join(keep, ",")
	return m
}

func (m *Monitor) initConfig(wait bool) ([]byte, error) {
	c, err := newInitConfig(m.spec, m.root.Target)
	if err != nil {
		return nil, err
	}
	c.Empty, c.Wait, c.Input = m.c.Root.Empty(), wait, m.output.Input
	c.Tasks = m.tasks != nil
	return json.Marshal(c)
}

// hear listens to the init until it waits for Go, or has become the program.
func (m *Monitor) hear(untilReady bool) error {
	master, err := hearInit(m.socket, m.pid, untilReady)
	if master != nil {
		m.stdio.master = master
	}
	if err == nil {
		return nil
	}
	spec, specErr := m.c.Spec() // a monitor that has become slim has none
	if specErr != nil {
		return err
	}
	return whyNotStarted(err, m.c.Name, spec, m.group)
}

// Go lets an init that waits become the program.
func (m *Monitor) Go() error {
	if _, err := unix.Write(m.socket, []byte{sayGo}); err != nil {
		return fmt.Errorf("start container %s: its init is gone: %w", m.c.Name, err)
	}
	if err := m.hear(false); err != nil {
		return &StartError{Name: m.c.Name, Err: err}
	}
	// The rest was recorded when the init came to wait.
	return m.c.Update(func(s *State) { s.Recorded, s.Started = Running, time.Now() })
}

// Adopt takes a process that CRIU restored as our child for the container's
// init, and a terminal's master if it has one.
func (m *Monitor) Adopt(pid int, master *os.File) error {
	m.pid, m.stdio.master = pid, master
	return m.record(false)
}

// record writes down that the init exists.
func (m *Monitor) record(waiting bool) error {
	init, err := ProcessOf(m.pid)
	if err != nil {
		init = Process{Pid: m.pid} // it has ended already; Serve will tell
	}
	attachment, net, image := m.c.State.Attachment, m.c.State.Net, m.c.State.Image
	loader := Process{}
	if m.loader != 0 {
		if loader, err = ProcessOf(m.loader); err != nil {
			loader = Process{} // it is done already
		}
	}
	return m.c.Update(func(s *State) {
		s.Recorded, s.Init, s.Monitor, s.Boot = Running, init, Self(), bootID()
		s.MonitorThread, s.Starting, s.Maker = unix.Gettid(), false, Process{}
		s.Net, s.Attachment, s.Terminal = net, attachment, m.spec.Process.Terminal
		s.Image, s.ExitStatus, s.Finished, s.Loader, s.OOMKilled = image, nil, time.Time{}, loader, false
		if attachment != nil {
			s.LastAddress = attachment.Address
		}
		if waiting {
			s.Recorded = Created
		} else {
			s.Started = time.Now()
		}
	})
}

// OutsidePlan lists what the monitor does before the container's init exists, a
// line each as a person would type it.
func OutsidePlan(spec *specs.Spec) ([]string, error) {
	mounts, err := mountsOf(spec)
	if err != nil {
		return nil, err
	}
	lines := []string{mount.Root{Lower: spec.Root.Path, Layer: "LAYER", Target: "ROOT"}.String()}
	for _, m := range mounts {
		if !m.Inside() {
			lines = append(lines, m.String())
		}
		if r := hiddenResolver(spec); m.Target == "/run" && m.Kept() && r.Path != "" {
			lines = append(lines, "cp /etc/resolv.conf ROOT"+r.Path)
		}
	}
	if set := outsideSysctls(spec); len(set) > 0 {
		lines = append(lines, "ip netns exec CONTAINER "+sysctlCommand(set))
	}
	if spec.Root.Readonly {
		lines = append(lines, "mount -o remount,bind,ro ROOT")
	}
	return lines, nil
}
