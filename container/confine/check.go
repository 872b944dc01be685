package confine

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Check refuses a bundle whose confinement cannot be what it says, before
// anything is made: unknown names, limits that make no sense, and sysctls that
// are not the container's own. What this host cannot give shows at the start.
func Check(spec *specs.Spec) error {
	if p := spec.Process; p != nil {
		if _, err := parseCapabilities(p.Capabilities); err != nil {
			return fmt.Errorf("process.capabilities: %w", err)
		}
		if err := checkRlimits(p.Rlimits); err != nil {
			return fmt.Errorf("process.rlimits: %w", err)
		}
		if score := p.OOMScoreAdj; score != nil && (*score < -1000 || *score > 1000) {
			return fmt.Errorf("process.oomScoreAdj: %d is not between -1000 and 1000", *score)
		}
		if umask := p.User.Umask; umask != nil && *umask > 0o777 {
			return fmt.Errorf("process.user.umask: %#o is more than 0777", *umask)
		}
	}
	if spec.Linux == nil {
		return nil
	}
	own := func(kind specs.LinuxNamespaceType) bool {
		return slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == kind })
	}
	private := Private{
		IPC: own(specs.IPCNamespace), Network: own(specs.NetworkNamespace),
		User: own(specs.UserNamespace), UTS: own(specs.UTSNamespace),
	}
	if err := checkSysctls(spec.Linux.Sysctl, private); err != nil {
		return fmt.Errorf("linux.sysctl: %w", err)
	}
	return nil
}
