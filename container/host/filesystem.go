package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/mount"
)

func filesystemProbes(o Options) []probe {
	const group = "filesystems"
	all := []probe{
		{group, "overlay", true, func() answer { return verdict(tryOverlay(), unix.ENODEV, unix.EINVAL) },
			"no private changes over a shared root filesystem", "load the module: modprobe overlay"},
		{group, "pseudo filesystems", true, askPseudo,
			"containers lack some of their usual mounts", "build the kernel with CONFIG_POSIX_MQUEUE=y, CONFIG_TMPFS=y"},
		{group, "mount API", false, func() answer { return verdict(tryMountAPI()) },
			"mounts are made by path", "Linux 5.2 or newer"},
		{group, "id-mapped mounts", false, func() answer { return verdict(tryIDMapped(), unix.EINVAL) },
			"a container in a user namespace cannot have a root filesystem of the host's", "Linux 6.3 or newer for tmpfs"},
	}
	if o.Root != "" {
		all = append(all,
			probe{group, "container directory", true, func() answer { return askRoot(o.Root) },
				"no place for containers and images", "choose another with --root"},
			probe{group, "layers on disk", false, func() answer { return askLayer(o.Root) },
				"what a container over the host's / changes is kept in memory while it runs",
				"put --root on a filesystem of its own"})
	}
	return all
}

// OnTmpfs tells whether a directory is on a filesystem in memory, which is gone
// after a reboot.
func OnTmpfs(dir string) (bool, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return stat.Type == unix.TMPFS_MAGIC, nil
}

// onTmpfs runs f with a directory on a tmpfs that nobody else sees.
func onTmpfs(f func(dir string) error) error {
	return apart(unix.CLONE_NEWNS, func() error {
		dir := os.TempDir()
		if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
			return &os.PathError{Op: "mount tmpfs", Path: dir, Err: err}
		}
		return f(dir)
	})
}

func tryOverlay() error {
	return onTmpfs(func(dir string) error {
		for _, name := range []string{"lower", "upper", "work", "root"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				return err
			}
		}
		root := filepath.Join(dir, "root")
		data := fmt.Sprintf("lowerdir=%s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
		if err := unix.Mount("overlay", root, "overlay", 0, data); err != nil {
			return fmt.Errorf("mount overlay: %w", err)
		}
		return os.WriteFile(filepath.Join(root, "probe"), nil, 0o600)
	})
}

// askLayer puts a container's root filesystem together over the host's /, with
// its changes below the container directory.
func askLayer(root string) answer {
	parent, err := existing(root)
	if err != nil {
		return unknown(err)
	}
	dir, err := os.MkdirTemp(parent, ".probe-")
	if err != nil {
		return unknown(err)
	}
	inMemory := false
	err = apart(unix.CLONE_NEWNS, func() (err error) {
		view := mount.Root{Lower: "/", Layer: filepath.Join(dir, "layer"), Target: filepath.Join(dir, "root")}
		for _, name := range []string{view.Layer, view.Target} {
			if err := os.Mkdir(name, 0o755); err != nil {
				return err
			}
		}
		if inMemory, err = view.Prepare(); err != nil {
			return err
		}
		if err := view.Apply(); err != nil {
			return err
		}
		return unix.Unmount(view.Target, unix.MNT_DETACH)
	})
	err = errors.Join(err, os.RemoveAll(dir))
	if err == nil && inMemory {
		return missing("%s is on the same filesystem as /", parent)
	}
	return verdict(err)
}

// existing is path, or the nearest directory above it that is there.
func existing(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for {
		info, err := os.Stat(path)
		switch {
		case err == nil && info.IsDir():
			return path, nil
		case err == nil:
			return "", fmt.Errorf("%s: not a directory", path)
		case !errors.Is(err, fs.ErrNotExist) || path == "/":
			return "", err
		}
		path = filepath.Dir(path)
	}
}

func askRoot(root string) answer {
	dir, err := existing(root)
	if err != nil {
		return missing("%v", err)
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return unknown(&os.PathError{Op: "statfs", Path: dir, Err: err})
	}
	if stat.Flags&unix.ST_RDONLY != 0 {
		return missing("%s: read-only filesystem", root)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS); err != nil {
		return missing("%s: %v", dir, err)
	}
	free := stat.Bavail * uint64(stat.Bsize)
	a := good("%s: %s free", root, size(free))
	if free < 1<<30 {
		a.costs, a.remedy = "an image is as large as the container's memory", "free some, or choose another --root"
	}
	return a
}

func size(bytes uint64) string {
	for _, unit := range []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}} {
		if bytes >= 1<<unit.shift {
			return fmt.Sprintf("%.1f %s", float64(bytes)/float64(uint64(1)<<unit.shift), unit.name)
		}
	}
	return fmt.Sprintf("%d KiB", bytes>>10)
}

// askPseudo opens a context for each filesystem that a container's mounts
// need; nothing is mounted. ENODEV: the kernel does not know the name.
func askPseudo() answer {
	var lack []string
	for _, name := range []string{"proc", "sysfs", "tmpfs", "devpts", "mqueue"} {
		fd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
		switch {
		case err == nil:
			unix.Close(fd)
		case err == unix.ENODEV:
			lack = append(lack, name)
		default:
			return unknown(fmt.Errorf("fsopen %s: %w", name, err))
		}
	}
	if lack != nil {
		return missing("no %s", strings.Join(lack, ", "))
	}
	return good("proc, sysfs, tmpfs, devpts, mqueue")
}

func tryMountAPI() error {
	mount, err := detachedTmpfs()
	if err != nil {
		return err
	}
	return unix.Close(mount)
}

// detachedTmpfs is a mount that hangs in no tree; it ends with its descriptor.
func detachedTmpfs() (int, error) {
	context, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, fmt.Errorf("fsconfig: %w", err)
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return mount, nil
}

func tryIDMapped() error {
	return withUserNamespace(func(namespace *os.File) error {
		mount, err := detachedTmpfs()
		if err != nil {
			return err
		}
		defer unix.Close(mount)
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace.Fd())}
		if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("mount_setattr: %w", err)
		}
		return nil
	})
}
