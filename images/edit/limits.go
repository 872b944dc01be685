package edit

import (
	"encoding/json"
	"maps"
	"slices"

	"crucible/container/cgroup"
	"crucible/images"
	"crucible/proto/imagepb"
)

// limits changes the values of the container's cgroup, which a restore sets
// again, and the bundle's, with which the container would start anew. The group's
// place is crucible's own: crucible/NAME in every hierarchy.
func (e *Edit) limits() error {
	r := e.o.Limits
	if r == nil {
		return nil
	}
	group := e.namespace(imagepb.NamespaceKind_NAMESPACE_KIND_CGROUP).GetCgroup()
	if group == nil {
		return e.refuse("restore it, and give it limits with `crucible update`", "limits: the image has none of a cgroup")
	}
	values, err := cgroup.ValuesOf(r, group.Mode)
	if err != nil {
		return e.refuse("see `crucible image edit --help`", "%v", err)
	}
	if group.Values == nil {
		group.Values = map[string]string{}
	}
	for _, file := range slices.Sorted(maps.Keys(values)) {
		old, now := group.Values[file], values[file]
		if old == now {
			continue
		}
		e.change(images.Namespaces, "cgroup "+file, old, now)
		if group.Values[file] = now; now == "" {
			delete(group.Values, file)
		}
	}
	if err := cgroup.CheckValues(group.Values); err != nil {
		return e.refuse("give a smaller limit", "limits: %v", err)
	}
	return e.bundleLimits()
}

// bundleLimits replaces the objects that `crucible update` replaces, too.
func (e *Edit) bundleLimits() error {
	data, err := json.Marshal(e.o.Limits)
	if err != nil {
		return err
	}
	var parts map[string]any
	if err := json.Unmarshal(data, &parts); err != nil {
		return err
	}
	resources := e.bundle.object("linux", "resources")
	for _, part := range []string{"memory", "cpu", "pids"} {
		now, ok := parts[part]
		if !ok {
			continue
		}
		before, err := json.Marshal(resources[part])
		if err != nil {
			return err
		}
		after, err := json.Marshal(now)
		if err != nil {
			return err
		}
		if string(before) == string(after) {
			continue
		}
		old := string(before)
		if resources[part] == nil {
			old = ""
		}
		e.change(images.Bundle, "linux.resources."+part, old, string(after))
		e.bundle.set(resources, part, now)
	}
	return nil
}
