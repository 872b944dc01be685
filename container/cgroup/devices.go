package cgroup

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// rule is one entry of linux.resources.devices. Later ones win.
type rule struct {
	allow        bool
	kind         byte  // 'b' or 'c', 'a' for both
	major, minor int64 // -1: any
	access       uint32
}

// The bits of include/uapi/linux/bpf.h, BPF_DEVCG_ACC_*.
const (
	accessMknod = 1 << iota
	accessRead
	accessWrite
	accessAll = accessMknod | accessRead | accessWrite
)

// DefaultDevices are the rules that follow those of a bundle: the devices that
// each container has by the runtime specification (config-linux.md, "Default
// Devices"), and mknod of any, which without read or write access is harmless.
// A caller that makes further devices adds their rules to the bundle's.
func DefaultDevices() []specs.LinuxDeviceCgroup {
	number := func(n int64) *int64 { return &n }
	all := []specs.LinuxDeviceCgroup{
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
	}
	for _, d := range [][2]int64{
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, // null zero full random urandom
		{5, 0}, {5, 1}, {5, 2}, // tty console ptmx
	} {
		all = append(all, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(d[0]), Minor: number(d[1]), Access: "rwm"})
	}
	// Unix98 pseudo terminals.
	return append(all, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(136), Access: "rwm"})
}

func (s *resources) devices(list []specs.LinuxDeviceCgroup) {
	if len(list) == 0 {
		return
	}
	var rules []rule
	for i, d := range list {
		r, err := newRule(d)
		if err != nil {
			s.fail(fmt.Sprintf("devices[%d]", i), "%w", err)
			return
		}
		rules = append(rules, r)
	}
	for _, d := range DefaultDevices() {
		r, err := newRule(d)
		if err != nil {
			s.fail("devices", "%w", err)
			return
		}
		rules = append(rules, r)
	}
	if s.version("devices") != 1 {
		// v2 has no files for devices: a BPF program decides (cgroup-v2.rst,
		// "Device controller"). It needs a group there, and no controller.
		s.add("devices", "freezer", "", "").program = deviceProgram(rules)
		return
	}
	for _, r := range rules {
		file := "devices.deny"
		if r.allow {
			file = "devices.allow"
		}
		for _, line := range r.lines() {
			s.add("devices", "devices", file, line)
		}
	}
}

func newRule(d specs.LinuxDeviceCgroup) (rule, error) {
	r := rule{allow: d.Allow, kind: 'a', major: -1, minor: -1}
	switch d.Type {
	case "", "a":
	case "b", "c":
		r.kind = d.Type[0]
	default:
		return r, fmt.Errorf("type %q is none of a, b, c", d.Type)
	}
	if d.Major != nil {
		r.major = *d.Major
	}
	if d.Minor != nil {
		r.minor = *d.Minor
	}
	if r.major < -1 || r.major >= 1<<32 || r.minor < -1 || r.minor >= 1<<32 {
		return r, fmt.Errorf("there is no device %d:%d", r.major, r.minor)
	}
	for _, c := range d.Access {
		bit, ok := map[rune]uint32{'r': accessRead, 'w': accessWrite, 'm': accessMknod}[c]
		if !ok {
			return r, fmt.Errorf("access %q may hold r, w and m", d.Access)
		}
		r.access |= bit
	}
	if r.access == 0 {
		r.access = accessAll // as with "a" in the kernel's own files
	}
	return r, nil
}

// lines are the rule as devices.allow and devices.deny take it. The kernel
// ignores all that follows an "a" (security/device_cgroup.c,
// devcgroup_update_access): where something does follow, both kinds are named.
func (r rule) lines() []string {
	if r.kind == 'a' && r.major < 0 && r.minor < 0 && r.access == accessAll {
		return []string{"a"}
	}
	kinds := []byte{r.kind}
	if r.kind == 'a' {
		kinds = []byte{'b', 'c'}
	}
	var all []string
	for _, k := range kinds {
		all = append(all, fmt.Sprintf("%c %s:%s %s", k, orStar(r.major), orStar(r.minor), r.letters()))
	}
	return all
}

func (r rule) letters() string {
	var s strings.Builder
	for i, letter := range "mrw" {
		if r.access>>i&1 != 0 {
			s.WriteRune(letter)
		}
	}
	return s.String()
}

func orStar(n int64) string {
	if n < 0 {
		return "*"
	}
	return decimal(n)
}
