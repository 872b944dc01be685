package edit

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"crucible/images"
	"crucible/proto/imagepb"
)

// volumes changes where binds of the host's files come from. CRIU knows them by
// their mount points only: a restore mounts them for it (MOUNT_ORIGIN_EXTERNAL).
func (e *Edit) volumes() error {
	for _, v := range e.o.Volumes {
		if !path.IsAbs(v.Path) || path.Clean(v.Path) != v.Path {
			return e.refuse("give OLD=NEW with NEW a path on the host such as /srv/data", "volume %s: its new path %q must be absolute and clean", v.Of, v.Path)
		}
		if err := e.volume(v); err != nil {
			return err
		}
	}
	return nil
}

func (e *Edit) volume(v Volume) error {
	var known []string
	found := false
	for i, m := range e.bundle.list("mounts") {
		mount, ok := m.(map[string]any)
		if !ok || !isBind(mount) {
			continue
		}
		source, target := text(mount["source"]), text(mount["destination"])
		known = append(known, source+" (at "+target+")")
		if v.Of != source && v.Of != target {
			continue
		}
		found = true
		if source == v.Path {
			continue
		}
		e.change(images.Bundle, fmt.Sprintf("mounts[%d] (at %s) source", i, target), source, v.Path)
		e.bundle.set(mount, "source", v.Path)
		e.moveMount(target, source, v.Path)
		if _, err := os.Stat(v.Path); err != nil {
			e.note("%s is not there on this host: where the image is restored it must be, with the files that the container has open or mapped", v.Path)
		}
	}
	switch {
	case found:
		return nil
	case len(known) == 0:
		return e.refuse("it has no bind mount, or its files are in the image itself", "volume %s: the container has none", v.Of)
	}
	return e.refuse("its volumes are "+strings.Join(known, ", "), "volume %s: the container has no such one", v.Of)
}

func isBind(mount map[string]any) bool {
	options, _ := mount["options"].([]any)
	return text(mount["type"]) == "bind" || slices.Contains(options, any("bind")) || slices.Contains(options, any("rbind"))
}

// moveMount changes the path on the host of the mount and of those below it that
// came with it.
func (e *Edit) moveMount(target, from, to string) {
	for _, m := range e.mounts.Mounts {
		if m.Origin != imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL || m.Point != target && !strings.HasPrefix(m.Point, target+"/") {
			continue
		}
		rest, below := strings.CutPrefix(m.HostPath, from)
		if m.HostPath == "" || !below || rest != "" && rest[0] != '/' {
			continue
		}
		e.change(images.Mounts, m.Point+" host path", m.HostPath, to+rest)
		m.HostPath = to + rest
	}
}
