package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func rightsProbes() []probe {
	const group = "rights"
	return []probe{
		{group, "user", true, askUser,
			"ids, devices and mounts of a container cannot be made again", "run crucible as root, outside of any container"},
		{group, "cap_sys_admin", true, capability(unix.CAP_SYS_ADMIN),
			"no namespaces, no mounts", "run as root; in a container: --privileged"},
		{group, "cap_sys_ptrace", true, capability(unix.CAP_SYS_PTRACE),
			"tasks cannot be stopped and read", "run as root; in a container: --privileged"},
		{group, "cap_net_admin", true, capability(unix.CAP_NET_ADMIN),
			"no network for containers; no TCP connection can be carried", "run as root; in a container: --privileged"},
		{group, "cap_checkpoint_restore", false, capability(unix.CAP_CHECKPOINT_RESTORE),
			"nothing, as long as cap_sys_admin is there", "run as root; in a container: --privileged"},
		{group, "cap_sys_resource", false, capability(unix.CAP_SYS_RESOURCE),
			"a task whose uid is not 0 cannot be checkpointed unless it is in a user namespace; hard limits cannot be raised again",
			"run containers as root, or in a user namespace"},
	}
}

// askUser wants the real root: CRIU and the kernel check most rights against
// the first user namespace.
func askUser() answer {
	maps, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return unknown(err)
	}
	defer maps.Close()
	first, err := isFirstUserNamespace(maps)
	switch {
	case err != nil:
		return unknown(err)
	case os.Geteuid() != 0:
		return missing("uid %d", os.Geteuid())
	case !first:
		return missing("root of a user namespace only")
	}
	return good("root")
}

// isFirstUserNamespace reads /proc/self/uid_map. The first namespace maps all
// ids but -1 to themselves (user_namespaces(7)).
func isFirstUserNamespace(uidMap io.Reader) (bool, error) {
	lines := bufio.NewScanner(uidMap)
	if !lines.Scan() {
		return false, lines.Err() // no map yet: not the first
	}
	return strings.Join(strings.Fields(lines.Text()), " ") == "0 0 4294967295", nil
}

func capability(bit uint) func() answer {
	return func() answer {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&header, &sets[0]); err != nil {
			return unknown(fmt.Errorf("capget: %w", err))
		}
		if sets[bit/32].Effective&(1<<(bit%32)) != 0 {
			return good("")
		}
		if sets[bit/32].Permitted&(1<<(bit%32)) == 0 {
			return missing("not permitted")
		}
		return missing("permitted, but not effective")
	}
}
