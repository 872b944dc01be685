package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Root describes a container's root filesystem.
type Root struct {
	Lower  string // directory that is shown and never written
	Layer  string // directory for the private layer: upper/ and work/ below it
	Target string // where the root is put together; must exist
	// Users, when not nil, is a user namespace by whose maps the lower
	// directory is shown (mount_setattr(2), MOUNT_ATTR_IDMAP).
	Users *os.File
	// UID and GID own the layer: the container's root user, as the host sees it.
	UID, GID int
}

// Upper is the directory that holds what the container changed.
func (r Root) Upper() string { return filepath.Join(r.Layer, "upper") }

func (r Root) work() string { return filepath.Join(r.Layer, "work") }

// InMemory tells whether the layer must stand on a tmpfs. The kernel refuses
// an upper directory that lies inside of the lower one (ELOOP,
// ovl_check_overlapping_layers in fs/overlayfs/super.c); what is mounted below
// the lower directory does not count as inside.
func (r Root) InMemory() (bool, error) {
	var lower, layer unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, r.Lower, 0, unix.STATX_MNT_ID, &lower); err != nil {
		return false, &os.PathError{Op: "stat root filesystem", Path: r.Lower, Err: err}
	}
	if err := unix.Statx(unix.AT_FDCWD, r.Layer, 0, unix.STATX_MNT_ID, &layer); err != nil {
		return false, &os.PathError{Op: "stat", Path: r.Layer, Err: err}
	}
	sameDevice := lower.Dev_major == layer.Dev_major && lower.Dev_minor == layer.Dev_minor
	if !sameDevice {
		return false, nil
	}
	real, err := filepath.EvalSymlinks(r.Lower)
	if err != nil {
		return false, err
	}
	layerReal, err := filepath.EvalSymlinks(r.Layer)
	if err != nil {
		return false, err
	}
	return real == "/" || layerReal == real || strings.HasPrefix(layerReal, real+"/"), nil
}

// Prepare makes the layer's directories, on a tmpfs where it must be one. What
// was in the layer before is still there afterwards when it is on disk. It
// reports whether the layer is in memory.
func (r Root) Prepare() (inMemory bool, err error) {
	if inMemory, err = r.InMemory(); err != nil {
		return false, err
	}
	if inMemory {
		if err := unix.Mount("tmpfs", r.Layer, "tmpfs", unix.MS_NODEV, "mode=0700"); err != nil {
			return true, fmt.Errorf("mount tmpfs for the layer on %s: %w", r.Layer, err)
		}
	}
	for _, dir := range []string{r.Upper(), r.work()} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return inMemory, err
		}
	}
	// The upper directory's owner and mode become those of the container's root.
	var st unix.Stat_t
	if err := unix.Stat(r.Lower, &st); err != nil {
		return inMemory, &os.PathError{Op: "stat root filesystem", Path: r.Lower, Err: err}
	}
	if err := os.Chmod(r.Upper(), os.FileMode(st.Mode&0o777)); err != nil {
		return inMemory, err
	}
	return inMemory, os.Chown(r.Upper(), r.UID, r.GID)
}

// Apply mounts the root on its target. Prepare comes first.
func (r Root) Apply() error {
	lower := r.Lower
	if r.Users != nil {
		// The layer needs no map: what the container writes into it bears the
		// host's ids of the container's users.
		var err error
		if lower, err = r.idmap(); err != nil {
			return err
		}
	}
	data := "lowerdir=" + escape(lower) + ",upperdir=" + escape(r.Upper()) + ",workdir=" + escape(r.work()) +
		",redirect_dir=off,metacopy=off,index=off" // their marks in the layer could not be carried to another host
	if err := unix.Mount("overlay", r.Target, "overlay", 0, data); err != nil {
		return fmt.Errorf("mount overlay of %s on %s: %w", r.Lower, r.Target, err)
	}
	return nil
}

// String is the root as a shell command.
func (r Root) String() string {
	return "mount -t overlay -o lowerdir=" + r.Lower + ",upperdir=" + r.Upper() + ",workdir=" + r.work() + " overlay " + r.Target
}

// escape protects the separators of overlayfs's options.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`).Replace(path)
}

// Twin is where the lower directory appears by the maps of Users.
func (r Root) Twin() string { return r.Target + ".lower" }

// idmap mounts the lower directory on its twin, by the maps of Users.
func (r Root) idmap() (string, error) {
	twin := r.Twin()
	if err := os.Mkdir(twin, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, r.Lower, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("clone mount of %s: %w", r.Lower, err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(r.Users.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return "", fmt.Errorf("show %s by the user namespace's id maps (its file system must support id-mapped mounts, mount_setattr(2)): %w", r.Lower, err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, twin, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return "", fmt.Errorf("attach id-mapped mount on %s: %w", twin, err)
	}
	return twin, nil
}

// ReadOnly makes the mounted root read-only, once all mount points in it exist.
func (r Root) ReadOnly() error {
	if err := unix.Mount("", r.Target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", r.Target, err)
	}
	return nil
}
