package container

import (
	"fmt"
	"slices"

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

// checkIDs holds the bundle's maps against what the kernel takes
// (user_namespaces(7), "User and group ID mappings"), and its users against the
// maps.
func checkIDs(spec *specs.Spec) error {
	l, u := spec.Linux, spec.Process.User
	for _, m := range []struct {
		field string
		maps  []specs.LinuxIDMapping
	}{{"linux.uidMappings", l.UIDMappings}, {"linux.gidMappings", l.GIDMappings}} {
		if err := checkMaps(m.field, m.maps); err != nil {
			return err
		}
	}
	type use struct {
		field string
		id    uint32
		maps  []specs.LinuxIDMapping
	}
	uses := []use{{"process.user.uid", u.UID, l.UIDMappings}, {"process.user.gid", u.GID, l.GIDMappings}}
	for i, g := range u.AdditionalGids {
		uses = append(uses, use{fmt.Sprintf("process.user.additionalGids[%d]", i), g, l.GIDMappings})
	}
	for _, use := range uses {
		if len(use.maps) > 0 && !mapped(use.id, use.maps) {
			return fmt.Errorf("%s: %d is in no range of the user namespace", use.field, use.id)
		}
	}
	return nil
}

func checkMaps(field string, maps []specs.LinuxIDMapping) error {
	for i, m := range maps {
		if end := uint64(max(m.ContainerID, m.HostID)) + uint64(m.Size); m.Size == 0 || end > 1<<32 {
			return fmt.Errorf("%s[%d].size: %d ids from %d and %d on are no range", field, i, m.Size, m.ContainerID, m.HostID)
		}
		for j, before := range maps[:i] {
			if overlap(m.ContainerID, before.ContainerID, m.Size, before.Size) || overlap(m.HostID, before.HostID, m.Size, before.Size) {
				return fmt.Errorf("%s[%d]: overlaps with %s[%d]", field, i, field, j)
			}
		}
	}
	// The container is set up by its root.
	if len(maps) > 0 && !mapped(0, maps) {
		return fmt.Errorf("%s: no range has 0, the container's root", field)
	}
	return nil
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

func mapped(id uint32, maps []specs.LinuxIDMapping) bool {
	return slices.ContainsFunc(maps, func(m specs.LinuxIDMapping) bool { return overlap(id, m.ContainerID, 1, m.Size) })
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
