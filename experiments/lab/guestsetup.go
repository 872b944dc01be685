package lab

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A fsMount is one file system of the guest.
type fsMount struct {
	target, kind, data string
	flags              uintptr
	optional           bool // the kernel may not have it
}

// mountAll makes of the kernel's bare root what a host looks like:
//
//	/                  the initramfs, moved off the rootfs: pivot_root(2) refuses that one
//	/proc /sys /dev    the kernel's
//	/dev/pts /dev/shm /dev/mqueue
//	/run               tmpfs
//	/var/lib/crucible  tmpfs: a container's layer must be on another file system than /
//	/results           tmpfs
//
// The kernel mounts no devtmpfs when it starts from an initramfs.
func (p *plan) mountAll() error {
	if err := p.moveRoot(); err != nil {
		return fmt.Errorf("move off the rootfs: %w", err)
	}
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []fsMount{
		{target: "/proc", kind: "proc", flags: quiet},
		{target: "/sys", kind: "sysfs", flags: quiet},
		{target: "/dev", kind: "devtmpfs", data: "mode=0755"},
		{target: "/dev/pts", kind: "devpts", data: "ptmxmode=0666,mode=0620,gid=5"},
		{target: "/dev/shm", kind: "tmpfs", data: "mode=1777"},
		{target: "/dev/mqueue", kind: "mqueue", optional: true},
		{target: "/dev/hugepages", kind: "hugetlbfs", optional: true},
		{target: "/run", kind: "tmpfs", data: "mode=0755"},
		{target: "/var/lib/crucible", kind: "tmpfs", data: "mode=0711"},
		{target: Results, kind: "tmpfs", data: "mode=0755"},
		{target: "/sys/kernel/tracing", kind: "tracefs", optional: true},
		{target: "/sys/kernel/security", kind: "securityfs", optional: true},
	} {
		if err := m.mount(); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func (m fsMount) mount() error {
	err := os.MkdirAll(m.target, 0o755)
	if err == nil {
		err = unix.Mount(m.kind, m.target, m.kind, m.flags, m.data)
	}
	if err != nil && m.optional {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

// moveRoot puts another mount over the rootfs. For the cases that is the same
// files; where people, or tests, may do anything, they are moved to a tmpfs,
// which also allows what the rootfs does not: to be mounted with mapped ids. That
// takes a third of a second.
func (p *plan) moveRoot() error {
	const place = "/newroot"
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	var err error
	if p.Job.Run != "" {
		err = unix.Mount("/", place, "", unix.MS_BIND, "")
	} else if err = unix.Mount("root", place, "tmpfs", 0, "mode=0755,size=90%"); err == nil {
		err = moveTree("/", place)
	}
	if err != nil {
		return err
	}
	if err := os.Chdir(place); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// moveTree moves what is below one directory to another, on another file
// system, a file at a time.
func moveTree(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case source == to:
		case e.IsDir():
			info, err := e.Info()
			if err != nil {
				return err
			}
			if err := os.Mkdir(target, info.Mode().Perm()); err != nil {
				return err
			}
			if err := os.Chmod(target, info.Mode()&(fs.ModePerm|fs.ModeSticky)); err != nil {
				return err
			}
			if err := moveTree(source, target); err != nil {
				return err
			}
		case e.Type() == fs.ModeSymlink:
			link, err := os.Readlink(source)
			if err != nil {
				return err
			}
			if err := os.Symlink(link, target); err != nil {
				return err
			}
		case e.Type().IsRegular():
			if err := moveFile(source, target, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func moveFile(source, target string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Remove(source)
}

// setUp does what the plan asks for: modules, cgroups, the loopback link, the
// directory of CRIU's cache.
func (p *plan) setUp() error {
	for _, file := range p.Modules {
		if err := insert(file); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte(p.Hostname)); err != nil {
		return fmt.Errorf("set the host's name: %w", err)
	}
	if err := mountCgroups(p.Cgroup); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo) // CRIU tries TCP's repair mode on it
	}
	if err != nil {
		return fmt.Errorf("bring the loopback link up: %w", err)
	}
	// CRIU maps all that a program has reserved as writable for a moment
	// (criu/mem.c: map_private_vma). A Go program reserves half a gigabyte, which
	// the default heuristic refuses where that is more than all of the memory
	// (mm/util.c: __vm_enough_memory).
	if err := os.WriteFile("/proc/sys/vm/overcommit_memory", []byte("1"), 0); err != nil {
		return err
	}
	if p.Rundir != "" {
		if err := os.MkdirAll(p.Rundir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
		if errors.Is(err, unix.ENOEXEC) {
			return fmt.Errorf("load %s: %w: the modules do not fit the kernel", file, err)
		}
		return fmt.Errorf("load %s: %w", file, err)
	}
	return nil
}

// mountCgroups mounts what systemd mounts for a layout: v2 alone; each v1
// controller in a hierarchy of its own, which v1 has and hybrid too, besides a
// v2 hierarchy without controllers at unified.
func mountCgroups(layout string) error {
	const top = "/sys/fs/cgroup"
	if layout == CgroupV2 {
		m := fsMount{target: top, kind: "cgroup2"}
		if err := m.mount(); err != nil {
			return err
		}
		return enableControllers(top)
	}
	if err := (fsMount{target: top, kind: "tmpfs", data: "mode=0755"}).mount(); err != nil {
		return err
	}
	made := 0
	for _, set := range []string{
		"freezer", "memory", "pids", "cpu,cpuacct", "cpuset", "blkio", "devices", "hugetlb", "net_cls,net_prio", "perf_event", "rdma", "misc",
	} {
		dir := top + "/" + set
		if os.MkdirAll(dir, 0o755) != nil || unix.Mount("cgroup", dir, "cgroup", 0, set) != nil {
			os.Remove(dir)
			continue
		}
		made++
		for _, one := range strings.Split(set, ",") {
			if one != set {
				if err := os.Symlink(set, top+"/"+one); err != nil {
					return err
				}
			}
		}
	}
	if made == 0 {
		return fmt.Errorf("mount cgroup v1: the kernel has no controller of it (CONFIG_CGROUP_FREEZER, CONFIG_MEMCG_V1)")
	}
	if err := (fsMount{target: top + "/systemd", kind: "cgroup", data: "none,name=systemd"}).mount(); err != nil {
		return err
	}
	if layout == CgroupHybrid {
		return fsMount{target: top + "/unified", kind: "cgroup2"}.mount()
	}
	return nil
}

func enableControllers(top string) error {
	have, err := os.ReadFile(top + "/cgroup.controllers")
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(have)) {
		// One at a time: a controller that cannot be had does not keep the
		// others off.
		_ = os.WriteFile(top+"/cgroup.subtree_control", []byte("+"+c), 0)
	}
	return nil
}
