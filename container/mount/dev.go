package mount

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/safepath"
)

// StdioDir holds the FIFOs that are a container's standard streams. They lie
// inside the container, so that nothing in it was opened outside, and are
// opened by the monitor too, through its own view of the same mount.
const StdioDir = "/dev/crucible"

// Dev fills a fresh tmpfs on /dev.
type Dev struct {
	Devices  []specs.LinuxDevice // besides the default ones
	Terminal bool                // /dev/console leads to the container's terminal
	// RootUID, RootGID own the nodes; UID, GID is the user of the container's
	// program and owns the FIFOs. All as the host sees them.
	RootUID, RootGID, UID, GID int
}

// defaultDevices are those that the OCI runtime specification demands
// (config-linux.md, "Default Devices").
func defaultDevices() []specs.LinuxDevice {
	mode := os.FileMode(0o666)
	node := func(p string, major, minor int64) specs.LinuxDevice {
		return specs.LinuxDevice{Path: p, Type: "c", Major: major, Minor: minor, FileMode: &mode}
	}
	return []specs.LinuxDevice{
		node("/dev/null", 1, 3), node("/dev/zero", 1, 5), node("/dev/full", 1, 7),
		node("/dev/random", 1, 8), node("/dev/urandom", 1, 9), node("/dev/tty", 5, 0),
	}
}

// Apply makes the nodes, links and FIFOs in the container's root. It sets the
// calling thread's umask, which must be its own (CLONE_FS).
func (d Dev) Apply(root *os.File) error {
	defer unix.Umask(unix.Umask(0))
	dir, err := safepath.OpenDir(root, "/dev", 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, dev := range append(defaultDevices(), d.Devices...) {
		if err := d.node(root, dir, dev); err != nil {
			return fmt.Errorf("make device %s: %w", dev.Path, err)
		}
	}
	links := [][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
	}
	if d.Terminal {
		// A link cannot be redirected while it is mounted onto (CVE-2025-52565),
		// and CRIU has no mount to find the terminal for.
		links = append(links, [2]string{"pts/0", "console"})
	}
	for _, l := range links {
		if err := unix.Symlinkat(l[0], int(dir.Fd()), l[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("link /dev/%s: %w", l[1], err)
		}
	}
	return d.fifos(dir)
}

func (d Dev) node(root, devDir *os.File, dev specs.LinuxDevice) error {
	types := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
	kind, known := types[dev.Type]
	if !known {
		return fmt.Errorf("type %q is not one of c, u, b, p", dev.Type)
	}
	dir := devDir
	if parent := path.Dir(path.Clean(dev.Path)); parent != "/dev" {
		var err error
		if dir, err = safepath.OpenDir(root, parent, 0o755); err != nil {
			return err
		}
		defer dir.Close()
	}
	perm := uint32(0o666)
	if dev.FileMode != nil {
		perm = uint32(dev.FileMode.Perm())
	}
	uid, gid := d.RootUID, d.RootGID
	if dev.UID != nil {
		uid += int(*dev.UID)
	}
	if dev.GID != nil {
		gid += int(*dev.GID)
	}
	return mknod(dir, path.Base(dev.Path), kind|perm, int(unix.Mkdev(uint32(dev.Major), uint32(dev.Minor))), uid, gid)
}

func (d Dev) fifos(dev *os.File) error {
	name := path.Base(StdioDir)
	if err := unix.Mkdirat(int(dev.Fd()), name, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", StdioDir, err)
	}
	fd, err := unix.Openat(int(dev.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), StdioDir)
	defer dir.Close()
	for _, name := range []string{"stdin", "stdout", "stderr"} {
		if err := mknod(dir, name, unix.S_IFIFO|0o600, 0, d.UID, d.GID); err != nil {
			return fmt.Errorf("make FIFO %s/%s: %w", StdioDir, name, err)
		}
	}
	return nil
}

// mknod makes a node. One that exists already is
// replaced: two lines of a bundle may name the same device.
func mknod(dir *os.File, name string, mode uint32, dev, uid, gid int) error {
	fd := int(dir.Fd())
	err := unix.Mknodat(fd, name, mode, dev)
	if errors.Is(err, unix.EEXIST) {
		if err := unix.Unlinkat(fd, name, 0); err != nil {
			return err
		}
		err = unix.Mknodat(fd, name, mode, dev)
	}
	if err != nil {
		return err
	}
	if uid == 0 && gid == 0 {
		return nil
	}
	return unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}
