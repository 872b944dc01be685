package podman

import (
	"cmp"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"crucible/proto/imagepb"
)

// adaptSpec makes of the container's configuration one that we can start it by.
func (u *unpacker) adaptSpec() error {
	s := &u.spec
	if s.Process == nil || s.Root == nil || s.Linux == nil {
		return &Error{Text: specDump + " says nothing of the container"}
	}
	if s.Process.Terminal {
		return &Error{Text: "its container has a terminal, which its runtime holds", Advice: "run the container without --tty"}
	}
	if len(s.Linux.UIDMappings) > 0 {
		return &Error{Text: "its container has a user namespace", Advice: "run the container without --userns"}
	}
	s.Root.Path = cmp.Or(u.o.Rootfs, u.config.Rootfs, s.Root.Path)
	if _, err := os.Stat(s.Root.Path); err != nil {
		u.note("its root filesystem %s is not there: a restore needs one with the same files (import it with --rootfs)", s.Root.Path)
	}
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return ofRuntime(m) && m.Destination != "/dev/shm" })
	for n, m := range s.Mounts {
		if m.Destination == "/dev/shm" {
			s.Mounts[n] = specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}}
		}
	}
	s.Linux.CgroupsPath, s.Hooks = "", nil
	for n := range s.Linux.Namespaces {
		s.Linux.Namespaces[n].Path = ""
	}
	if p := s.Process; p.ApparmorProfile != "" || p.SelinuxLabel != "" {
		u.note("without its AppArmor profile, or SELinux label")
		p.ApparmorProfile, p.SelinuxLabel, s.Linux.MountLabel = "", "", ""
	}
	for _, v := range u.config.NamedVolumes {
		if !slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == v.Dest }) {
			u.note("volume %s of %s is not in its configuration", v.Name, v.Dest)
		}
	}
	return nil
}

// ofRuntime: a file that Podman or CRI-O made for this container.
func ofRuntime(m specs.Mount) bool {
	return m.Type == "bind" && strings.Contains(m.Source, "/overlay-containers/") && strings.Contains(m.Source, "/userdata/")
}

// namespaces are those that the configuration asks for.
func (u *unpacker) namespaces() *imagepb.Namespaces {
	kinds := map[specs.LinuxNamespaceType]imagepb.NamespaceKind{
		specs.PIDNamespace: imagepb.NamespaceKind_NAMESPACE_KIND_PID, specs.MountNamespace: imagepb.NamespaceKind_NAMESPACE_KIND_MOUNT,
		specs.UTSNamespace: imagepb.NamespaceKind_NAMESPACE_KIND_UTS, specs.IPCNamespace: imagepb.NamespaceKind_NAMESPACE_KIND_IPC,
		specs.NetworkNamespace: imagepb.NamespaceKind_NAMESPACE_KIND_NETWORK, specs.UserNamespace: imagepb.NamespaceKind_NAMESPACE_KIND_USER,
		specs.TimeNamespace: imagepb.NamespaceKind_NAMESPACE_KIND_TIME, specs.CgroupNamespace: imagepb.NamespaceKind_NAMESPACE_KIND_CGROUP,
	}
	out := &imagepb.Namespaces{}
	for kind, number := range kinds {
		n := &imagepb.Namespace{Kind: number, Host: true}
		for _, own := range u.spec.Linux.Namespaces {
			if own.Type == kind {
				n.Host = false
			}
		}
		switch kind {
		case specs.UTSNamespace:
			n.Detail = &imagepb.Namespace_Uts{Uts: &imagepb.UTSNamespace{Hostname: u.spec.Hostname}}
		case specs.NetworkNamespace:
			if !n.Host {
				n.Detail = &imagepb.Namespace_Network{Network: &imagepb.NetworkNamespace{}}
			}
		}
		out.Namespaces = append(out.Namespaces, n)
	}
	slices.SortFunc(out.Namespaces, func(a, b *imagepb.Namespace) int { return int(a.Kind) - int(b.Kind) })
	return out
}
