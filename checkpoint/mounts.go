package checkpoint

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/checkpoint/preflight"
	"crucible/container"
	"crucible/proto/imagepb"
)

// readMounts lists the mounts that the container sees, and says of each where
// a restore will take it from.
func readMounts(pid int, spec *specs.Spec) (*imagepb.Mounts, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	infos, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return nil, fmt.Errorf("read /proc/%d/mountinfo: %w", pid, err)
	}
	return classify(infos, spec, func(point string) bool {
		var st unix.Stat_t
		err := unix.Lstat(fmt.Sprintf("/proc/%d/root%s", pid, point), &st)
		return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	})
}

// classify tells the mounts apart by their targets:
//
//	/                                   made by us: the root, given to CRIU as --root
//	proc, devpts, mqueue; binds of them in the image: CRIU mounts them again
//	what the bundle names, and below    external: we mount it, CRIU takes it from there
//	masks                               external: we have the null device and an empty directory
//	anything else                       in the image: the container mounted it
func classify(infos []*mountinfo.Info, spec *specs.Spec, isDir func(point string) bool) (*imagepb.Mounts, error) {
	ours, err := container.Mounts(spec)
	if err != nil {
		return nil, err
	}
	implied := len(ours) - len(spec.Mounts) // a /dev that the bundle does not name comes first
	out := &imagepb.Mounts{}
	for _, i := range infos {
		m := &imagepb.Mount{
			Id: int32(i.ID), Parent: int32(i.Parent), Major: uint32(i.Major), Minor: uint32(i.Minor),
			Root: i.Root, Point: i.Mountpoint, Options: strings.Split(i.Options, ","), Type: i.FSType,
			Source: i.Source, SuperOptions: strings.Split(i.VFSOptions, ","), Propagation: strings.Fields(i.Optional),
			Origin: imagepb.MountOrigin_MOUNT_ORIGIN_IN_IMAGE,
		}
		switch {
		case i.Mountpoint == "/":
			m.Origin = imagepb.MountOrigin_MOUNT_ORIGIN_MADE_BY_US
		case isMask(spec, i):
			m.Origin, m.CriuKey, m.HostPath = imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL, i.Mountpoint, maskFile
			if isDir(i.Mountpoint) {
				m.HostPath = maskDirectory
			}
		case i.FSType == "proc" || i.FSType == "devpts" || i.FSType == "mqueue":
		default:
			for n, o := range ours {
				if !o.Inside() && (i.Mountpoint == o.Target || (o.Recursive || o.Type == "cgroup") && strings.HasPrefix(i.Mountpoint, o.Target+"/")) {
					m.Origin, m.CriuKey, m.BundleIndex = imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL, i.Mountpoint, uint32(n+1-implied)
					m.HostPath = ""
					if o.Type == "bind" {
						m.HostPath = o.Source + strings.TrimPrefix(i.Mountpoint, o.Target)
					}
				}
			}
		}
		out.Mounts = append(out.Mounts, m)
	}
	// What comes from the bundle is UTF-8, being JSON: the keys and paths that CRIU
	// is told stay as they are.
	for _, m := range out.Mounts {
		m.Root, m.Point, m.Source = imagepb.Text(m.Root), imagepb.Text(m.Point), imagepb.Text(m.Source)
		for i := range m.SuperOptions {
			m.SuperOptions[i] = imagepb.Text(m.SuperOptions[i])
		}
	}
	return out, nil
}

// What a mask is made of, as host_path of its mount says: a restore puts its
// own in place.
const (
	maskFile      = "crucible:null"
	maskDirectory = "crucible:empty"
)

func isMask(spec *specs.Spec, i *mountinfo.Info) bool {
	for _, p := range spec.Linux.MaskedPaths {
		if i.Mountpoint == p && i.FSType != "proc" {
			return true
		}
	}
	return false
}

// lostMask finds a mask whose null device the container has removed: CRIU would
// dump it, and not be able to mount it again (criu/mount-v2.c looks for the file
// to remove it once more).
func lostMask(mounts *imagepb.Mounts) []preflight.Finding {
	for _, m := range mounts.Mounts {
		if m.HostPath == maskFile && strings.HasSuffix(m.Root, "//deleted") {
			return []preflight.Finding{{
				Kind: "mask-deleted", Blocks: true, FD: -1, Path: m.Point,
				What:   "the container has removed its /dev/null, which hides this file: CRIU cannot mount a removed file again",
				Remedy: "start the container anew, and let its program leave /dev/null in place",
			}}
		}
	}
	return nil
}

// Externals maps each external mount's key to where a restore finds it: places
// are the mounts that were made for it, see [container.Monitor.Places].
func Externals(mounts *imagepb.Mounts, places map[string]string) map[string]string {
	paths := map[string]string{}
	for _, m := range mounts.Mounts {
		if m.Origin != imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL {
			continue
		}
		switch m.HostPath {
		case maskFile:
			paths[m.CriuKey] = places[container.NullPlace]
		case maskDirectory:
			paths[m.CriuKey] = places[container.EmptyPlace]
		default:
			paths[m.CriuKey] = placeOf(m.Point, places)
		}
	}
	return paths
}

// placeOf finds a mount point: a mount of its own, or one that came with a
// recursive bind above it.
func placeOf(point string, places map[string]string) string {
	for dir := point; dir != "/"; dir = path.Dir(dir) {
		if place, ok := places[dir]; ok {
			return place + strings.TrimPrefix(point, dir)
		}
	}
	return point
}

// externalKeys are the dump's --external options.
func externalKeys(mounts *imagepb.Mounts) []string {
	var keys []string
	for _, m := range mounts.Mounts {
		if m.Origin == imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL {
			keys = append(keys, fmt.Sprintf("mnt[%s]:%s", m.Point, m.CriuKey))
		}
	}
	return keys
}

// externalPoints are the mount points that the preflight need not look into.
func externalPoints(mounts *imagepb.Mounts) []string {
	var points []string
	for _, m := range mounts.Mounts {
		if m.Origin == imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL {
			points = append(points, m.Point)
		}
	}
	return points
}
