package confine

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// moby/sys/capability (v0.5.0) is small enough (0.15 MB, 8 µs at each start of a
// container's init), but its Apply leaves the bounding set as it is, without a
// word, to a caller that lacks CAP_SETPCAP, and its errors do not tell which of
// the five sets was refused.

// capSet is a set of capabilities, bit N standing for capability N.
type capSet uint64

func (s capSet) has(n int) bool { return s&(1<<n) != 0 }

// capabilityNames is indexed by number: linux/capability.h.
var capabilityNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
	"CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

func (s capSet) String() string {
	var names []string
	for n := range 64 {
		if !s.has(n) {
			continue
		}
		if n < len(capabilityNames) {
			names = append(names, capabilityNames[n])
		} else {
			names = append(names, fmt.Sprintf("capability %d", n))
		}
	}
	return strings.Join(names, ", ")
}

func parseSet(names []string) (capSet, error) {
	var set capSet
next:
	for _, name := range names {
		for n, known := range capabilityNames {
			if name == known {
				set |= 1 << n
				continue next
			}
		}
		return 0, fmt.Errorf("unknown capability %q", name)
	}
	return set, nil
}

// capabilities are the five sets of one thread.
type capabilities struct {
	bounding, effective, inheritable, permitted, ambient capSet
}

// parseCapabilities reads the sets of a bundle. None at all means no capability, as in
// every other runtime.
func parseCapabilities(spec *specs.LinuxCapabilities) (capabilities, error) {
	var c capabilities
	if spec == nil {
		return c, nil
	}
	for _, set := range []struct {
		name  string
		names []string
		to    *capSet
	}{
		{"bounding", spec.Bounding, &c.bounding},
		{"effective", spec.Effective, &c.effective},
		{"inheritable", spec.Inheritable, &c.inheritable},
		{"permitted", spec.Permitted, &c.permitted},
		{"ambient", spec.Ambient, &c.ambient},
	} {
		var err error
		if *set.to, err = parseSet(set.names); err != nil {
			return c, fmt.Errorf("%s set: %w", set.name, err)
		}
	}
	if extra := c.effective &^ c.permitted; extra != 0 {
		return c, fmt.Errorf("effective set: %v must be permitted too", extra)
	}
	if extra := c.ambient &^ (c.permitted & c.inheritable); extra != 0 {
		return c, fmt.Errorf("ambient set: %v must be permitted and inheritable too", extra)
	}
	return c, nil
}

func (c capabilities) availableIn(have capabilities) error {
	if lacking := c.bounding &^ have.bounding; lacking != 0 {
		return fmt.Errorf("capabilities: bounding set: %v not available on this host", lacking)
	}
	all := c.permitted | c.effective | c.inheritable | c.ambient
	if lacking := all &^ (have.permitted & have.bounding); lacking != 0 {
		return fmt.Errorf("capabilities: %v not available on this host", lacking)
	}
	return nil
}

// DefaultCapabilities is what a container's root gets when nobody asks for
// anything else: the list of Docker, less what this host itself lacks.
func DefaultCapabilities() []string {
	wanted := []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER",
		"CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
		"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
		"CAP_SETUID", "CAP_SYS_CHROOT",
	}
	// Where the sets cannot be read nothing is known to be missing, and the
	// container's start gives the error.
	have, err := currentCapabilities()
	if err != nil {
		return wanted
	}
	var names []string
	for _, name := range wanted {
		if set, err := parseSet([]string{name}); err == nil && set&^(have.bounding&have.permitted) == 0 {
			names = append(names, name)
		}
	}
	return names
}

// hasCapability says whether the calling thread has a capability in effect.
func hasCapability(number int) bool {
	have, err := currentCapabilities()
	return err == nil && have.effective.has(number)
}

func currentCapabilities() (capabilities, error) {
	var c capabilities
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return c, fmt.Errorf("capabilities: capget: %w", err)
	}
	c.effective = capSet(data[0].Effective) | capSet(data[1].Effective)<<32
	c.permitted = capSet(data[0].Permitted) | capSet(data[1].Permitted)<<32
	c.inheritable = capSet(data[0].Inheritable) | capSet(data[1].Inheritable)<<32
	for n := range 64 {
		got, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		if err != nil {
			break // EINVAL: the kernel knows no capability from here on
		}
		c.bounding |= capSet(got) << n
		// Ambient capabilities are Linux 4.3; before, nobody has one.
		if got, err = unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(n), 0, 0); err == nil {
			c.ambient |= capSet(got) << n
		}
	}
	return c, nil
}

// dropBounding leaves the wanted capabilities in the bounding set.
func dropBounding(have, want capSet) error {
	for n := range 64 {
		if !have.has(n) || want.has(n) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
			return fmt.Errorf("capabilities: drop %v from the bounding set: %w", capSet(1)<<n, err)
		}
	}
	return nil
}

// capData is what capset(2) takes for permitted, effective and inheritable.
func (c capabilities) capData() [2]unix.CapUserData {
	word := func(shift int) unix.CapUserData {
		return unix.CapUserData{
			Effective:   uint32(c.effective >> shift),
			Permitted:   uint32(c.permitted >> shift),
			Inheritable: uint32(c.inheritable >> shift),
		}
	}
	return [2]unix.CapUserData{word(0), word(32)}
}

func (c capabilities) set() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := c.capData()
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capabilities: set permitted %v; inheritable %v: %w", c.permitted, c.inheritable, err)
	}
	return nil
}

func (c capabilities) setAmbient() error {
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && c.ambient != 0 {
		return fmt.Errorf("capabilities: clear the ambient set: %w", err)
	}
	for n := range 64 {
		if !c.ambient.has(n) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return fmt.Errorf("capabilities: raise ambient %v: %w", capSet(1)<<n, err)
		}
	}
	return nil
}

// AllCapabilities are those that this host can give: what "ALL" means.
func AllCapabilities() ([]string, error) {
	have, err := currentCapabilities()
	if err != nil {
		return nil, err
	}
	var names []string
	for n, name := range capabilityNames {
		if (have.bounding & have.permitted).has(n) {
			names = append(names, name)
		}
	}
	return names, nil
}
