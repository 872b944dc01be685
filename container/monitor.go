package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/confine"
	"crucible/container/mount"
	"crucible/container/network"
)

// Monitor is the parent of a container, in the process that has that task: the
// command itself, or a detached crucible. It belongs to the thread that made
// it: namespaces are the property of a thread, see [NewMonitor].
type Monitor struct {
	c      *Container
	spec   *specs.Spec
	ns     namespaces
	mounts []mount.Mount
	root   mount.Root
	places map[string]string // see Places

	hostNet *os.File      // the host's network namespace
	net     *os.File      // the container's, nil for --net host
	named   chan struct{} // closed when net exists, or netErr
	netErr  error
	group   *cgroup.Group
	pid     int
	loader  int      // the process that brings its memory, see SetLoader
	loading string   // a directory that only the loader needs
	init    *os.File // of a container in the foreground: its pidfd
	stdio   *stdio
	control *control
	socket  int      // to the init until it has become the program
	initEnd *os.File // owns socket
	tasks   *os.File // what the init enters last, see cgroup.SplitTasks
	undo    []func()
	output  Output
	tap     *tap // for the output of a container in the foreground
	lost    *OutputError

	former   Process // the monitor before this one
	warnings []network.Warning
	detached bool // this process has no other purpose
}

// Output is where a container's output goes besides its log.
type Output struct {
	Stdout, Stderr *os.File
	Input          bool // the container's standard input can be written to
}

// NewMonitor makes the calling goroutine's thread the monitor's: it is locked
// for good and gets a mount namespace of its own. Host mounts that go away
// later go away in it as well (slave propagation), so that it keeps none busy.
func NewMonitor(c *Container, output Output) (*Monitor, error) {
	runtime.LockOSThread()
	m := &Monitor{c: c, output: output, socket: -1, former: c.State.Monitor}
	var err error
	if m.spec, err = c.Spec(); err != nil {
		return nil, err
	}
	if err := Validate(m.spec); err != nil {
		return nil, &BundleError{Path: c.path("config.json"), Cause: err}
	}
	if m.ns, err = namespacesOf(m.spec); err != nil {
		return nil, err
	}
	if m.mounts, err = mountsOf(m.spec); err != nil {
		return nil, err
	}
	if m.hostNet, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	m.named = make(chan struct{})
	go m.makeNamespace()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("make a mount namespace for the monitor: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("make the monitor's mounts private: %w", err)
	}
	unix.Umask(0o022)
	return m, nil
}

// PrepareOptions say how a restore differs from a start.
type PrepareOptions struct {
	// Fill, when not nil, puts contents into the layer and the kept mounts in
	// place of what a start would put there: dirs maps "/" to the layer's upper
	// directory and each kept mount's target to its directory.
	Fill func(dirs map[string]string) error
	// Quiet leaves the container's link without traffic until Activate.
	Quiet bool
	// Saved, when not nil, is what the fresh network namespace is to hold; with
	// NewAddress the container gets another address than the saved one.
	Saved      *network.Saved
	NewAddress bool
	// SameHost: the peers that were known when Saved was made are the same.
	SameHost bool
}

// Prepare makes everything that a container needs and that is not a process of
// its own: cgroup, network namespace and link, root filesystem. What it made is
// undone by Abort.
func (m *Monitor) Prepare(ctx context.Context, o PrepareOptions) error {
	if err := m.makeGroup(); err != nil {
		return err
	}
	nets := make(chan error, 1)
	go func() { nets <- m.makeNetwork(ctx, o) }()
	err := m.makeRoot(o)
	return errors.Join(err, <-nets)
}

// makeNamespace begins with the first breath: the kernel takes its time for a
// network namespace, and more if it is just burying another one.
func (m *Monitor) makeNamespace() {
	if m.ns.Net {
		m.net, m.netErr = network.NewNamespace()
	}
	close(m.named)
}

func (m *Monitor) makeGroup() error {
	if m.group != nil {
		return nil
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	var resources *specs.LinuxResources
	if m.spec.Linux != nil {
		resources = m.spec.Linux.Resources
	}
	m.group, err = layout.Create(m.c.Name, resources)
	return err
}

func (m *Monitor) makeNetwork(ctx context.Context, o PrepareOptions) error {
	<-m.named
	ns, err := m.net, m.netErr
	if ns == nil || err != nil {
		return err
	}
	if m.c.State.Net.Mode == network.ModeBridge {
		m.c.State.Attachment, err = network.Attach(ctx, network.Options{
			Root: string(m.c.Root), Name: m.c.Name, NS: ns, Config: m.c.State.Net, Quiet: o.Quiet,
			Like: o.Saved, NewAddress: o.NewAddress, Prefer: m.c.State.LastAddress,
		})
		if err != nil {
			return err
		}
	}
	if o.Saved == nil {
		return m.setSysctls(ns)
	}
	m.warnings, err = network.Rebuild(ns, o.Saved, network.RebuildOptions{
		Attachment: m.c.State.Attachment, KeepNeighbours: o.SameHost, NonlocalBind: o.NewAddress,
	})
	return err
}

// SysctlError is a sysctl that the kernel does not have or does not set so.
type SysctlError struct{ Err error }

func (e *SysctlError) Error() string { return e.Err.Error() }
func (e *SysctlError) Unwrap() error { return e.Err }
func (e *SysctlError) Hint() string {
	return "correct it: --sysctl KEY=VALUE, or linux.sysctl in the bundle's config.json"
}

// setSysctls sets those that the init has no right to set.
func (m *Monitor) setSysctls(ns *os.File) error {
	set := outsideSysctls(m.spec)
	if len(set) == 0 {
		return nil
	}
	if err := network.Do(ns, func() error { return confine.WriteSysctls(set) }); err != nil {
		return &SysctlError{err}
	}
	return nil
}

// Warnings are what could not be brought back and need not stop a restore.
func (m *Monitor) Warnings() []network.Warning { return m.warnings }

// claim records that this monitor is about to bring the container up, so that
// another command can clean up should it be killed meanwhile. Of several that
// try, one succeeds.
func (m *Monitor) claim(op string) error {
	unlock, err := m.c.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.c.load(); err != nil {
		return err
	}
	if err := m.c.idle(op); err != nil {
		return err
	}
	s := &m.c.State
	m.former = s.Monitor
	s.Starting, s.Monitor, s.Boot = true, Self(), bootID()
	return m.c.save()
}

// Abort takes down what Prepare and Start made.
func (m *Monitor) Abort() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	<-m.named
	m.leaveNetwork()
	for i := len(m.undo) - 1; i >= 0; i-- {
		m.undo[i]()
	}
	m.undo = nil
	if m.group != nil {
		_ = m.group.Kill(ctx)
		if m.pid > 0 {
			_, _ = unix.Wait4(m.pid, nil, 0, nil)
		}
		_ = m.group.Remove(ctx)
	}
	if a := m.c.State.Attachment; a != nil {
		_ = m.OnHost(func() error { return a.Detach(ctx) })
		m.c.State.Attachment = nil
	}
	m.stdio.close()
	m.control.close()
	m.unmount()
	_ = m.c.bringLayerBack()
	_ = m.c.Update(func(s *State) {
		s.Starting = false
		if m.former.Alive() { // it keeps parked frames still, for another try
			s.Monitor = m.former
		}
	})
	m.sweep(ctx)
}

// leaveNetwork takes the calling thread, which is the monitor's, back to the
// host's network: the container's namespace is to end with the container.
func (m *Monitor) leaveNetwork() {
	if m.net != nil {
		m.net.Close()
		m.net = nil
		_ = unix.Setns(int(m.hostNet.Fd()), unix.CLONE_NEWNET)
	}
}

// sweep takes down what the last container leaves behind: the bridge, its
// rules, and the cgroup above all containers.
func (m *Monitor) sweep(ctx context.Context) {
	if m.c.State.Net.Mode == network.ModeBridge {
		_ = m.OnHost(func() error { _, err := network.Sweep(ctx, string(m.c.Root)); return err })
	}
	if m.group != nil {
		_ = m.group.Sweep()
	}
}

// Group is the container's cgroup, made when it is asked for the first time.
func (m *Monitor) Group() (*cgroup.Group, error) { err := m.makeGroup(); return m.group, err }

// NetNS is the container's network namespace, still without its link before
// Prepare; nil when the container uses the host's.
func (m *Monitor) NetNS() (*os.File, error) { <-m.named; return m.net, m.netErr }

// Container is the container that the monitor is for.
func (m *Monitor) Container() *Container { return m.c }

// SetNetwork changes how the container will meet the network. It must come
// before Prepare.
func (m *Monitor) SetNetwork(c network.Config) { m.c.State.Net = c }

// SetLoader names our child that brings the container its memory page by page.
// Without it the container would go on with wrong memory: it is ended with it.
// It must come before Adopt. It is written down, for it would outlive a monitor
// that is killed.
func (m *Monitor) SetLoader(pid int) error {
	m.loader = pid
	loader, err := ProcessOf(pid)
	if err != nil {
		return err
	}
	mine := m.c.State // what is not written down yet
	defer func() { mine.Loader = loader; m.c.State = mine }()
	return m.c.Update(func(s *State) { s.Loader = loader })
}

// DropWithLoader has a directory deleted once the loader, which alone still needs
// it, has ended.
func (m *Monitor) DropWithLoader(directory string) { m.loading = directory }

// SetImage says which image the container is restored from.
func (m *Monitor) SetImage(ref string) { m.c.State.Image = ref }
