package checkpoint

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/network"
	"crucible/container/proc"
	"crucible/proto/imagepb"
)

// gather reads and writes what our own files of the image hold, beside CRIU's work
// and while no task of the container runs.
func (d *dump) gather(ctx context.Context) error {
	end := d.line.Begin("read /proc", true)
	var err error
	if d.processes, err = readProcesses(d.c.State.Init.Pid); err != nil {
		return err
	}
	if d.namespaces, err = d.readNamespaces(); err != nil {
		return err
	}
	end()
	d.treesSaved = d.saveTrees(ctx)
	return nil
}

func readProcesses(init int) (*imagepb.Processes, error) {
	fs := proc.FS("/proc")
	tree, err := fs.Tree(init)
	if err != nil {
		return nil, err
	}
	out := &imagepb.Processes{TicksPerSecond: 100} // USER_HZ, the same on every architecture we build for
	inside := map[int]int32{}                      // pids of the host, parents before children
	for _, p := range tree.All() {
		one, err := readProcess(fs, p)
		if err != nil {
			return nil, fmt.Errorf("read process %d: %w", p.PID, err)
		}
		inside[p.PID], one.Ppid = one.Pid, inside[p.PPID]
		out.Processes = append(out.Processes, one)
	}
	return out, nil
}

// namespaceFiles are the names below /proc/PID/ns.
func namespaceFiles() []struct {
	file string
	kind imagepb.NamespaceKind
} {
	return []struct {
		file string
		kind imagepb.NamespaceKind
	}{
		{"pid", imagepb.NamespaceKind_NAMESPACE_KIND_PID}, {"mnt", imagepb.NamespaceKind_NAMESPACE_KIND_MOUNT},
		{"uts", imagepb.NamespaceKind_NAMESPACE_KIND_UTS}, {"ipc", imagepb.NamespaceKind_NAMESPACE_KIND_IPC},
		{"net", imagepb.NamespaceKind_NAMESPACE_KIND_NETWORK}, {"user", imagepb.NamespaceKind_NAMESPACE_KIND_USER},
		{"time", imagepb.NamespaceKind_NAMESPACE_KIND_TIME}, {"cgroup", imagepb.NamespaceKind_NAMESPACE_KIND_CGROUP},
	}
}

func (d *dump) readNamespaces() (*imagepb.Namespaces, error) {
	pid := d.c.State.Init.Pid
	out := &imagepb.Namespaces{}
	for _, f := range namespaceFiles() {
		inode, err := namespaceInode(pid, f.file)
		if os.IsNotExist(err) {
			continue // a kernel without this kind
		}
		if err != nil {
			return nil, err
		}
		ours, err := namespaceInode(os.Getpid(), f.file)
		if err != nil {
			return nil, err
		}
		n := &imagepb.Namespace{Kind: f.kind, Inode: inode, Host: inode == ours}
		if err := d.describe(n, pid); err != nil {
			return nil, fmt.Errorf("read %s namespace: %w", f.file, err)
		}
		out.Namespaces = append(out.Namespaces, n)
	}
	return out, nil
}

func namespaceInode(pid int, file string) (uint64, error) {
	var st unix.Stat_t
	path := "/proc/" + strconv.Itoa(pid) + "/ns/" + file
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// describe adds what is needed to make a namespace again.
func (d *dump) describe(n *imagepb.Namespace, pid int) error {
	switch n.Kind {
	case imagepb.NamespaceKind_NAMESPACE_KIND_UTS:
		uts, err := readUTS(pid)
		if err != nil {
			return err
		}
		n.Detail = &imagepb.Namespace_Uts{Uts: uts}
	case imagepb.NamespaceKind_NAMESPACE_KIND_USER:
		if n.Host {
			return nil
		}
		user, err := readUser(pid)
		if err != nil {
			return err
		}
		n.Detail = &imagepb.Namespace_User{User: user}
	case imagepb.NamespaceKind_NAMESPACE_KIND_TIME:
		time, err := readTime(pid)
		if err != nil {
			return err
		}
		n.Detail = &imagepb.Namespace_Time{Time: time}
	case imagepb.NamespaceKind_NAMESPACE_KIND_CGROUP:
		layout, err := cgroup.Detect()
		if err != nil {
			return err
		}
		values, err := d.group.Values()
		if err != nil {
			return err
		}
		n.Detail = &imagepb.Namespace_Cgroup{Cgroup: &imagepb.CgroupNamespace{Mode: layout.Mode(), Paths: d.group.Paths(), Values: values}}
	case imagepb.NamespaceKind_NAMESPACE_KIND_NETWORK:
		if d.ns == nil {
			return nil
		}
		saved, err := network.Save(d.ns, sortedNames(d.spec.Linux.Sysctl)...)
		if err != nil {
			return err
		}
		a := d.c.State.Attachment
		n.Detail = &imagepb.Namespace_Network{Network: saved.Proto(a)}
		if a == nil {
			return nil
		}
		d.bound, d.connectedUDP, err = network.BoundTo(d.ns, a.Address.Addr())
		return err
	}
	return nil
}

// readUTS enters the namespace with a thread that ends afterwards: the names
// are shown nowhere else.
func readUTS(pid int) (*imagepb.UTSNamespace, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/uts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var name unix.Utsname
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not to be used again
		err := unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS)
		if err == nil {
			err = unix.Uname(&name)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return nil, err
	}
	return &imagepb.UTSNamespace{
		Hostname: imagepb.Text(unix.ByteSliceToString(name.Nodename[:])), Domainname: imagepb.Text(unix.ByteSliceToString(name.Domainname[:])),
	}, nil
}

func readUser(pid int) (*imagepb.UserNamespace, error) {
	read := func(file string) ([]*imagepb.IDRange, error) {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			return nil, err
		}
		var ranges []*imagepb.IDRange
		for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
			var r imagepb.IDRange
			if _, err := fmt.Sscan(line, &r.Inside, &r.Outside, &r.Length); err != nil {
				return nil, fmt.Errorf("/proc/%d/%s: %q: %w", pid, file, line, err)
			}
			ranges = append(ranges, &imagepb.IDRange{Inside: r.Inside, Outside: r.Outside, Length: r.Length})
		}
		return ranges, nil
	}
	uids, err := read("uid_map")
	if err != nil {
		return nil, err
	}
	gids, err := read("gid_map")
	if err != nil {
		return nil, err
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/setgroups", pid))
	if err != nil {
		return nil, err
	}
	return &imagepb.UserNamespace{UidMap: uids, GidMap: gids, Setgroups: strings.TrimSpace(string(groups))}, nil
}

func readTime(pid int) (*imagepb.TimeNamespace, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/timens_offsets", pid))
	if err != nil {
		return nil, err
	}
	out := &imagepb.TimeNamespace{}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		var clock string
		var o imagepb.ClockOffset
		if _, err := fmt.Sscan(line, &clock, &o.Seconds, &o.Nanoseconds); err != nil {
			return nil, fmt.Errorf("/proc/%d/timens_offsets: %q: %w", pid, line, err)
		}
		offset := &imagepb.ClockOffset{Seconds: o.Seconds, Nanoseconds: o.Nanoseconds}
		switch clock {
		case "monotonic", "1":
			out.Monotonic = offset
		case "boottime", "7":
			out.Boottime = offset
		}
	}
	return out, nil
}

func sortedNames(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
