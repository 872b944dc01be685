package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"crucible/container/mount"
	"crucible/container/safepath"
)

// makeRoot puts the root filesystem together in the calling thread's mount
// namespace, and moves the thread to the container's network namespace once
// that exists: sysfs shows the network devices of whoever mounts it.
func (m *Monitor) makeRoot(o PrepareOptions) error {
	l := m.spec.Linux
	m.root = mount.Root{
		Lower: m.spec.Root.Path, Layer: m.c.Layer(), Target: m.c.Rootfs(),
		UID: hostID(0, l.UIDMappings), GID: hostID(0, l.GIDMappings),
	}
	for _, dir := range []string{m.root.Layer, m.root.Target, m.c.Root.Empty()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if m.ns.User {
		users, err := m.userNamespace()
		if err != nil {
			return err
		}
		defer users.Close()
		m.root.Users = users
	}
	if _, err := m.root.Prepare(); err != nil {
		return err
	}
	if o.Fill != nil {
		if err := o.Fill(map[string]string{"/": m.root.Upper()}); err != nil {
			return err
		}
	}
	if err := m.root.Apply(); err != nil {
		return err
	}
	return m.makeMounts(o)
}

func (m *Monitor) makeMounts(o PrepareOptions) error {
	into := m.root.Target
	if o.Fill != nil {
		into = m.c.path("mounts")
		if err := os.MkdirAll(into, 0o711); err != nil {
			return err
		}
	}
	dir, err := os.OpenFile(into, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	entered := false
	enter := func() error {
		if entered {
			return nil
		}
		entered = true
		if <-m.named; m.net == nil || m.netErr != nil {
			return m.netErr
		}
		if err := unix.Setns(int(m.net.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the container's network namespace: %w", err)
		}
		return nil
	}
	m.places = map[string]string{}
	for n, one := range m.mounts {
		target := one.Target
		if o.Fill != nil && !one.Inside() {
			one.Target = "/" + strconv.Itoa(n)
		}
		m.places[target] = filepath.Join(into, one.Target)
		if err := m.makeMount(dir, target, one, o, enter); err != nil {
			return err
		}
	}
	if err := enter(); err != nil {
		return err
	}
	if o.Fill != nil {
		if err := errors.Join(m.makeEmpty(dir), m.makeNull(dir)); err != nil {
			return err
		}
	}
	if err := m.openStdio(dir); err != nil {
		return err
	}
	if m.spec.Root.Readonly {
		return m.root.ReadOnly()
	}
	return nil
}

// EmptyPlace is where Places has the directory that masks directories.
const EmptyPlace = "empty"

// makeEmpty mounts the empty directory read-only: CRIU binds it over masked
// directories as it finds it, and what is writable here is writable there.
func (m *Monitor) makeEmpty(dir *os.File) error {
	m.places[EmptyPlace] = filepath.Join(dir.Name(), EmptyPlace)
	return mount.Mount{
		Type: "bind", Source: m.c.Root.Empty(), Target: "/" + EmptyPlace,
		Flags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC,
	}.Apply(dir)
}

// NullPlace is where Places has the null device that masks files.
const NullPlace = "null"

// makeNull finds the null device in the container's /dev. Where the container
// has put something else in its place, or nothing, there is one of our own.
func (m *Monitor) makeNull(dir *os.File) error {
	device := int(unix.Mkdev(1, 3))
	var st unix.Stat_t
	path := filepath.Join(m.places["/dev"], "null")
	err := unix.Lstat(path, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && int(st.Rdev) == device && m.places["/dev"] != "" {
		m.places[NullPlace] = path
		return nil
	}
	path = filepath.Join(dir.Name(), NullPlace, "null")
	m.places[NullPlace] = path
	own := mount.Mount{Type: "tmpfs", Target: "/" + NullPlace, Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "mode=755,size=4k"}
	if err := own.Apply(dir); err != nil {
		return err
	}
	if err := unix.Mknod(path, unix.S_IFCHR|0o666, device); err != nil {
		return &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	return unix.Chmod(path, 0o666)
}

// Places tells where the mounts that were made outside are, by their targets:
// in the root filesystem for a start, and beside it for a restore. CRIU takes
// each mount by itself, and could not take a root in a user namespace with
// anything mounted in it: such mounts are locked (mount_namespaces(7)).
func (m *Monitor) Places() map[string]string { return m.places }

// makeMount makes one mount of the bundle, below dir; target is where the
// container sees it.
func (m *Monitor) makeMount(dir *os.File, target string, one mount.Mount, o PrepareOptions, enter func() error) error {
	switch {
	case one.Inside():
		// Only its mount point can be made here, and an image has it.
		if o.Fill != nil {
			return nil
		}
		point, err := safepath.OpenDir(dir, one.Target, 0o755)
		if err != nil {
			return err
		}
		return point.Close()
	case one.Type == "sysfs":
		if err := enter(); err != nil {
			return err
		}
	case one.Type == "cgroup":
		return m.makeCgroupMounts(dir, one)
	case one.Type == "tmpfs" && m.ns.User:
		one.Data = appendOption(one.Data, fmt.Sprintf("uid=%d,gid=%d", m.root.UID, m.root.GID))
	}
	if err := one.Apply(dir); err != nil {
		return err
	}
	if err := m.detachOwn(dir, one); err != nil {
		return err
	}
	if !one.Kept() {
		return nil
	}
	if o.Fill != nil {
		return o.Fill(map[string]string{target: m.places[target]})
	}
	switch target {
	case "/dev":
		return m.dev().Apply(dir)
	case "/run":
		return hiddenResolver(m.spec).Apply(dir, m.root.UID, m.root.GID)
	}
	return nil
}

// detachOwn takes the root filesystem, as far as it is put together, out of a
// volume that contains the state root: CRIU finds a watched file by any mount
// that shows it, and a restore has nothing at that place.
func (m *Monitor) detachOwn(dir *os.File, one mount.Mount) error {
	if one.Type != "bind" || !one.Recursive {
		return nil
	}
	source, err := filepath.EvalSymlinks(one.Source)
	if err != nil {
		return err
	}
	own, err := filepath.EvalSymlinks(m.c.Dir)
	if err != nil {
		return err
	}
	path, err := filepath.Rel(source, own)
	if err != nil || !filepath.IsLocal(path) {
		return nil
	}
	return one.Detach(dir, path)
}

func (m *Monitor) dev() mount.Dev {
	l, p := m.spec.Linux, m.spec.Process
	return mount.Dev{
		Devices: l.Devices, Terminal: p.Terminal, RootUID: m.root.UID, RootGID: m.root.GID,
		UID: hostID(p.User.UID, l.UIDMappings), GID: hostID(p.User.GID, l.GIDMappings),
	}
}

func appendOption(data, more string) string {
	if data == "" {
		return more
	}
	return data + "," + more
}

// userNamespace makes a user namespace with the container's maps, to show the
// root filesystem by. The container's own cannot serve: it does not exist yet,
// and a restore would need it before CRIU makes it.
func (m *Monitor) userNamespace() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	defer r.Close()
	// The process does nothing but wait for its input to end.
	proc, err := os.StartProcess("/proc/self/exe", []string{holdName}, &os.ProcAttr{
		Files: []*os.File{r},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: sysMaps(m.spec.Linux.UIDMappings), GidMappings: sysMaps(m.spec.Linux.GIDMappings),
			GidMappingsEnableSetgroups: true,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	users, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", proc.Pid))
	w.Close()
	_, waitErr := proc.Wait()
	return users, errors.Join(err, waitErr)
}

// InCgroupNamespace runs a function on the calling thread, which is the
// monitor's, in a fresh cgroup namespace whose root is the container's group: a
// process that it starts is in it. A namespace shows what its maker is in
// (cgroup_namespaces(7)), so a helper in the group makes it.
func (m *Monitor) InCgroupNamespace(f func() error) error {
	own, err := os.Open("/proc/thread-self/ns/cgroup")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := m.enterCgroupNamespace(); err != nil {
		return fmt.Errorf("make a cgroup namespace: %w", err)
	}
	err = f()
	return errors.Join(err, unix.Setns(int(own.Fd()), unix.CLONE_NEWCGROUP))
}

func (m *Monitor) enterCgroupNamespace() error {
	hold, release, err := os.Pipe()
	if err != nil {
		return err
	}
	defer hold.Close()
	ready, says, err := os.Pipe()
	if err != nil {
		return errors.Join(err, release.Close())
	}
	defer ready.Close()
	pid := 0
	err = m.group.Start(func(group *os.File) (int, error) {
		attr := &syscall.SysProcAttr{}
		if group != nil {
			attr.UseCgroupFD, attr.CgroupFD = true, int(group.Fd())
		}
		var err error
		pid, err = syscall.ForkExec("/proc/self/exe", []string{holdName, "cgroup"}, &syscall.ProcAttr{
			Files: []uintptr{hold.Fd(), says.Fd()}, Sys: attr,
		})
		return pid, err
	})
	says.Close()
	if err != nil {
		return errors.Join(err, release.Close())
	}
	defer func() {
		release.Close()
		_, _ = retry(func() (int, error) { return unix.Wait4(pid, nil, 0, nil) })
	}()
	var thread int
	if _, err := fmt.Fscan(ready, &thread); err != nil {
		return fmt.Errorf("the helper that makes it failed: %w", err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/task/%d/ns/cgroup", pid, thread))
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWCGROUP)
}

// Empty is the directory that masks directories.
func (r Root) Empty() string { return filepath.Join(string(r), "empty") }

// makeCgroupMounts shows the container its own cgroups: the one directory of
// v2, or with v1 a directory for each controller. They are binds of our leaves,
// which a restore can make again, and not mounts of cgroupfs itself, which
// would show the root of whoever mounts it.
func (m *Monitor) makeCgroupMounts(root *os.File, one mount.Mount) error {
	paths := m.group.Paths()
	if v2, only := paths[""]; only && len(paths) == 1 {
		return mount.Mount{Type: "bind", Source: v2, Target: one.Target, Flags: one.Flags}.Apply(root)
	}
	top := mount.Mount{Type: "tmpfs", Target: one.Target, Flags: one.Flags &^ unix.MS_RDONLY, Data: "mode=755,size=64k"}
	if err := top.Apply(root); err != nil {
		return err
	}
	for controller, dir := range paths {
		if controller == "" {
			controller = "unified"
		}
		bind := mount.Mount{Type: "bind", Source: dir, Target: filepath.Join(one.Target, controller), Flags: one.Flags}
		if err := bind.Apply(root); err != nil {
			return err
		}
	}
	return nil
}
