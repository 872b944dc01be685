package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/mount"
)

func devMount() specs.Mount {
	return specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}}
}

// defaultMounts are what a program expects to find.
func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		devMount(),
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
}

// hostRootMounts hide what the host keeps where a program of the host would
// find other programs' sockets and scratch files.
func hostRootMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777"}},
		{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755"}},
	}
}

// maskedPaths and readonlyPaths are the customary ones of OCI runtimes
// (config-linux.md and moby's defaults): what of /proc and /sys tells of, or
// changes, the host.
func maskedPaths() []string {
	return []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func setMounts(spec *specs.Spec, o RunOptions) error {
	spec.Mounts = defaultMounts()
	if spec.Root.Path == "/" {
		spec.Mounts = append(spec.Mounts, hostRootMounts()...)
		list := o.hostSubmount
		if list == nil {
			list = hostSubmounts
		}
		paths, err := list()
		if err != nil {
			return err
		}
		for _, p := range paths {
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: p, Type: "bind", Source: p, Options: []string{"rbind", "ro"}})
		}
	}
	more, err := flagMounts(o)
	if err != nil {
		return err
	}
	for _, m := range more {
		spec.Mounts = override(spec.Mounts, m)
	}
	return nil
}

// flagMounts are the mounts of the flags, the outer ones first: the order of
// flags of different names is not known.
func flagMounts(o RunOptions) ([]specs.Mount, error) {
	var all []specs.Mount
	for _, t := range o.Tmpfs {
		m, err := parseTmpfs(t)
		if err == nil {
			err = checkFlagMount(m)
		}
		if err != nil {
			return nil, fmt.Errorf("tmpfs %q: %w", t, err)
		}
		all = append(all, m)
	}
	for _, v := range o.Volumes {
		m, err := parseVolume(v)
		if err == nil {
			err = checkFlagMount(m)
		}
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", v, err)
		}
		all = append(all, m)
	}
	depth := func(m specs.Mount) int { return strings.Count(m.Destination, "/") }
	slices.SortStableFunc(all, func(a, b specs.Mount) int { return depth(a) - depth(b) })
	return all, nil
}

// checkFlagMount finds what is wrong with a flag's mount, as long as it is
// known which flag that was.
func checkFlagMount(m specs.Mount) error {
	if m.Destination == "/" {
		return errors.New("TARGET must be below /; --rootfs is for another root filesystem")
	}
	if m.Destination == "/dev" && m.Type != "tmpfs" {
		return errors.New("/dev must be a tmpfs; --device gives the container a device node")
	}
	const field = "mount"
	if _, err := mount.Parse(m, field); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), field+"."))
	}
	for _, outer := range defaultMounts() {
		if !(mount.Mount{Type: outer.Type}).Inside() || outer.Type == "devpts" || outer.Destination == m.Destination {
			continue
		}
		if within(m.Destination, outer.Destination) {
			return fmt.Errorf("a mount below %s is not supported", outer.Destination)
		}
	}
	return nil
}

func parseTmpfs(t string) (specs.Mount, error) {
	target, options, _ := strings.Cut(t, ":")
	if !filepath.IsAbs(target) {
		return specs.Mount{}, errors.New("must be TARGET[:OPTIONS], with an absolute TARGET")
	}
	m := specs.Mount{Destination: filepath.Clean(target), Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev"}}
	if options != "" {
		m.Options = append(m.Options, strings.Split(options, ",")...)
	}
	return m, nil
}

// override puts a mount in the place of a default one with the same target.
func override(mounts []specs.Mount, m specs.Mount) []specs.Mount {
	for i := range mounts {
		if mounts[i].Destination == m.Destination {
			mounts[i] = m
			return mounts
		}
	}
	return append(mounts, m)
}

func parseVolume(v string) (specs.Mount, error) {
	parts := strings.Split(v, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || !filepath.IsAbs(parts[1]) {
		return specs.Mount{}, errors.New("must be SOURCE:TARGET[:ro], with an absolute TARGET")
	}
	source, err := filepath.Abs(parts[0])
	if err != nil {
		return specs.Mount{}, err
	}
	if _, err := os.Stat(source); err != nil {
		return specs.Mount{}, fmt.Errorf("%s: %w", source, cause(err))
	}
	options := []string{"rbind"}
	if len(parts) == 3 {
		options = append(options, strings.Split(parts[2], ",")...)
	}
	return specs.Mount{Destination: filepath.Clean(parts[1]), Type: "bind", Source: source, Options: options}, nil
}

// hostSubmounts are file systems of the host that an overlay of / does not
// show, and that programs may lie on: an overlay shows one file system only.
func hostSubmounts() ([]string, error) {
	disk := map[string]bool{"ext2": true, "ext3": true, "ext4": true, "xfs": true, "btrfs": true, "f2fs": true, "zfs": true, "erofs": true, "squashfs": true}
	places := []string{"/usr", "/opt", "/nix", "/gnu", "/home", "/root", "/srv", "/var", "/lib", "/bin", "/sbin", "/etc"}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		if !disk[m.FSType] {
			return true, false
		}
		for _, p := range places {
			if m.Mountpoint == p {
				return false, false
			}
		}
		return true, false
	})
	if err != nil {
		return nil, fmt.Errorf("list the host's mounts: %w", err)
	}
	var paths []string
	for _, m := range mounts {
		paths = append(paths, m.Mountpoint)
	}
	return paths, nil
}

// setDevices gives the container the devices that were asked for. No other can
// be opened than those and the default ones, whatever node is made by a program
// that may (CAP_MKNOD), or lies in an image or a volume.
func setDevices(spec *specs.Spec, o RunOptions) error {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, path := range o.Devices {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return fmt.Errorf("device %s: %w", path, err)
		}
		kind := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			kind = "c"
		case unix.S_IFBLK:
			kind = "b"
		default:
			return fmt.Errorf("device %s: is not a device node", path)
		}
		mode := os.FileMode(st.Mode & 0o777)
		major, minor := int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
		spec.Linux.Devices = append(spec.Linux.Devices, specs.LinuxDevice{Path: path, Type: kind, Major: major, Minor: minor, FileMode: &mode})
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: "rwm"})
	}
	spec.Linux.Resources.Devices = rules
	return nil
}
