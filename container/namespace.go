package container

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// namespaces says which namespaces a container has of its own.
type namespaces struct {
	Pid, Mount, UTS, IPC, Net, Cgroup, User, Time bool
}

// namespacesOf reads the bundle's list. A path to join is refused: only fresh
// namespaces can be checkpointed and made again.
func namespacesOf(spec *specs.Spec) (namespaces, error) {
	var n namespaces
	place := map[specs.LinuxNamespaceType]*bool{
		specs.PIDNamespace: &n.Pid, specs.MountNamespace: &n.Mount, specs.UTSNamespace: &n.UTS,
		specs.IPCNamespace: &n.IPC, specs.NetworkNamespace: &n.Net, specs.CgroupNamespace: &n.Cgroup,
		specs.UserNamespace: &n.User, specs.TimeNamespace: &n.Time,
	}
	for i, ns := range spec.Linux.Namespaces {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		p, known := place[ns.Type]
		switch {
		case !known:
			return n, fmt.Errorf("%s.type: %q is not a namespace", field, ns.Type)
		case *p:
			return n, fmt.Errorf("%s.type: %q is named twice", field, ns.Type)
		case ns.Path != "":
			return n, fmt.Errorf("%s.path: joining an existing namespace is not supported", field)
		}
		*p = true
	}
	switch l := spec.Linux; {
	case !n.Pid:
		return n, fmt.Errorf("linux.namespaces: a container needs a pid namespace of its own")
	case !n.Mount:
		return n, fmt.Errorf("linux.namespaces: a container needs a mount namespace of its own")
	case spec.Hostname != "" && !n.UTS:
		return n, fmt.Errorf("hostname: needs a uts namespace")
	case spec.Domainname != "" && !n.UTS:
		return n, fmt.Errorf("domainname: needs a uts namespace")
	case len(l.UIDMappings)+len(l.GIDMappings) > 0 && !n.User:
		return n, fmt.Errorf("linux.uidMappings: needs a user namespace")
	case n.User && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0):
		return n, fmt.Errorf("linux.uidMappings: a user namespace needs uidMappings and gidMappings")
	case len(l.TimeOffsets) > 0 && !n.Time:
		return n, fmt.Errorf("linux.timeOffsets: needs a time namespace")
	}
	return n, nil
}

// cloneFlags are the namespaces that exist from the init's first moment. The
// network namespace is made before, by the monitor; mount, cgroup and time are
// unshared by the init itself: its mounts are a copy of ours, and not ready yet;
// a cgroup namespace shows what its maker is in at that moment
// (cgroup_namespaces(7)); and clone(2) cannot make a time namespace with offsets
// (time_namespaces(7)).
func (n namespaces) cloneFlags() uintptr {
	flags := uintptr(unix.CLONE_NEWPID)
	if n.UTS {
		flags |= unix.CLONE_NEWUTS
	}
	if n.IPC {
		flags |= unix.CLONE_NEWIPC
	}
	if n.User {
		flags |= unix.CLONE_NEWUSER | unix.CLONE_NEWNS
	}
	return flags
}

// hostID maps an id of the container to the host's, by the bundle's maps.
func hostID(id uint32, maps []specs.LinuxIDMapping) int {
	for _, m := range maps {
		if id >= m.ContainerID && uint64(id) < uint64(m.ContainerID)+uint64(m.Size) {
			return int(m.HostID + id - m.ContainerID)
		}
	}
	if len(maps) == 0 {
		return int(id)
	}
	return 65534 // /proc/sys/kernel/overflowuid
}
