package cgroup

import (
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ValuesOf are the values that a group with these limits would have, in the
// words of [Group.Values], where cgroups are laid out as a mode says (see
// [Layout.Mode]); "" is a limit that is taken away.
func ValuesOf(r *specs.LinuxResources, mode string) (map[string]string, error) {
	version := 1 // also of a hybrid: the controllers are there
	if mode == "v2" {
		version = 2
	}
	list, err := settings(r, func(string) int { return version })
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, s := range list {
		value := s.value
		for _, l := range limits(version, s.controller) {
			if l.file == s.file && l.isNone(value) {
				value = ""
			}
		}
		values[s.file] = value
	}
	return values, nil
}

// CheckValues refuses limits that no kernel takes together.
func CheckValues(values map[string]string) error {
	memory, err1 := strconv.ParseUint(values["memory.limit_in_bytes"], 10, 64)
	both, err2 := strconv.ParseUint(values["memory.memsw.limit_in_bytes"], 10, 64)
	if err1 == nil && err2 == nil && both < memory {
		return fmt.Errorf("%d bytes of memory are more than the %d of memory and swap together", memory, both)
	}
	return nil
}
