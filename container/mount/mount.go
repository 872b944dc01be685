package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/safepath"
)

// Mount is one mount of a container, as plain data.
type Mount struct {
	Type   string // "tmpfs", "bind", "sysfs", "proc", "devpts", "mqueue", "cgroup"
	Source string // for a bind: the path on the host
	Target string // absolute, inside the container
	Flags  uintptr
	Data   string
	// Recursive makes a bind carry the mounts below its source.
	Recursive bool
	// Propagation is MS_PRIVATE, MS_SLAVE or MS_SHARED, with MS_REC where asked for.
	Propagation uintptr
	// RecursiveReadOnly is the option "rro".
	RecursiveReadOnly bool
}

// Inside tells whether the container's init must make the mount, because it
// shows a namespace that does not exist before.
func (m Mount) Inside() bool {
	switch m.Type {
	case "proc", "devpts", "mqueue":
		return true
	}
	return false
}

// Kept tells whether the contents of the mount belong to the container and are
// part of an image: they exist nowhere else.
func (m Mount) Kept() bool { return m.Type == "tmpfs" }

// String is the mount as a shell command.
func (m Mount) String() string {
	opts := flagNames(m.Flags)
	if m.Data != "" {
		opts = append(opts, m.Data)
	}
	var b strings.Builder
	b.WriteString("mount")
	switch {
	case m.Type == "bind" && m.Recursive:
		b.WriteString(" --rbind")
	case m.Type == "bind":
		b.WriteString(" --bind")
	default:
		b.WriteString(" -t " + m.Type)
	}
	if len(opts) > 0 {
		b.WriteString(" -o " + strings.Join(opts, ","))
	}
	source := m.Source
	if source == "" {
		source = m.Type
	}
	return b.String() + " " + source + " ROOT" + m.Target
}

// Apply makes the mount below root, which is an O_PATH descriptor of the
// container's root directory.
func (m Mount) Apply(root *os.File) error {
	if err := m.apply(root); err != nil {
		return &Error{m, err}
	}
	return nil
}

// Error is a mount that could not be made.
type Error struct {
	Mount Mount
	Cause error
}

func (e *Error) Error() string {
	with := ""
	if e.Mount.Data != "" {
		with = fmt.Sprintf(" with %q", e.Mount.Data)
	}
	return fmt.Sprintf("mount %s on %s%s: %v", e.Mount.Type, e.Mount.Target, with, e.Cause)
}

func (e *Error) Unwrap() error { return e.Cause }

// Hint says what to do about it.
func (e *Error) Hint() string {
	switch {
	case e.Mount.Type == "bind" && errors.Is(e.Cause, fs.ErrNotExist):
		return "the volume's source, " + e.Mount.Source + ", must be there"
	case e.Mount.Data != "" && errors.Is(e.Cause, unix.EINVAL):
		return "see the options of " + e.Mount.Type + " in mount(8)"
	}
	return "`crucible run --explain` shows all mounts of a container, in order"
}

func (m Mount) apply(root *os.File) error {
	if m.Type == "bind" {
		return m.bind(root)
	}
	target, err := safepath.OpenDir(root, m.Target, 0o755)
	if err != nil {
		return err
	}
	defer target.Close()
	source := m.Source
	if source == "" {
		source = m.Type
	}
	if err := unix.Mount(source, safepath.Path(target), m.Type, m.Flags, m.Data); err != nil {
		return err
	}
	if m.Propagation == 0 {
		return nil
	}
	return m.propagate(root)
}

func (m Mount) bind(root *os.File) error {
	// The source is the host's, not the container's: links in it are the user's wish.
	source, err := os.OpenFile(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer source.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return err
	}
	open := safepath.OpenFile
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		open = func(root *os.File, p string) (*os.File, error) { return safepath.OpenDir(root, p, 0o755) }
	}
	target, err := open(root, m.Target)
	if err != nil {
		return err
	}
	defer target.Close()
	flags := uintptr(unix.MS_BIND)
	if m.Recursive {
		flags |= unix.MS_REC
	}
	if err := unix.Mount(safepath.Path(source), safepath.Path(target), "", flags, ""); err != nil {
		return err
	}
	// The target's descriptor still names what lies under the new mount:
	// open it again to change the mount itself.
	mounted, err := safepath.Open(root, m.Target)
	if err != nil {
		return err
	}
	defer mounted.Close()
	propagation := m.Propagation
	if propagation == 0 {
		propagation = unix.MS_PRIVATE | unix.MS_REC
	}
	if err := unix.Mount("", safepath.Path(mounted), "", propagation, ""); err != nil {
		return fmt.Errorf("set propagation: %w", err)
	}
	if m.RecursiveReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(int(mounted.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return fmt.Errorf("make read-only with all below (rro): %w", err)
		}
	}
	if m.Flags == 0 {
		return nil
	}
	return remount(mounted, m.Flags)
}

// remount changes the flags of one mount. What the mount has already and may
// not lose in a user namespace (mount_namespaces(7), "locked") is kept.
func remount(mounted *os.File, flags uintptr) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(mounted.Fd()), &fs); err != nil {
		return err
	}
	const keep = unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_RDONLY
	if err := unix.Mount("", safepath.Path(mounted), "", flags|uintptr(fs.Flags)&keep|unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
		return fmt.Errorf("set %s: %w", strings.Join(flagNames(flags), ","), err)
	}
	return nil
}

// Detach takes away the mounts that a recursive bind has brought along at a
// path below its source, and below that.
func (m Mount) Detach(root *os.File, below string) error {
	mounted, err := safepath.Open(root, m.Target)
	if err != nil {
		return err
	}
	defer mounted.Close()
	top, err := os.Readlink(safepath.Path(mounted))
	if err != nil {
		return err
	}
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(top, below)))
	if err != nil {
		return fmt.Errorf("list mounts below %s: %w", m.Target, err)
	}
	// A mount comes after the one that it is in.
	for _, i := range slices.Backward(infos) {
		if err := unix.Unmount(i.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: i.Mountpoint, Err: err}
		}
	}
	return nil
}

func (m Mount) propagate(root *os.File) error {
	mounted, err := safepath.Open(root, m.Target)
	if err != nil {
		return err
	}
	defer mounted.Close()
	return unix.Mount("", safepath.Path(mounted), "", m.Propagation, "")
}

// options are the words of mount(8) that the kernel takes as flags.
func options() map[string]uintptr {
	return map[string]uintptr{
		"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
		"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC, "mand": unix.MS_MANDLOCK,
		"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
		"strictatime": unix.MS_STRICTATIME, "nosymfollow": unix.MS_NOSYMFOLLOW,
	}
}

func flagNames(flags uintptr) []string {
	var names []string
	for _, n := range []string{"ro", "nosuid", "nodev", "noexec", "sync", "dirsync", "mand", "noatime", "nodiratime", "relatime", "strictatime", "nosymfollow"} {
		if flags&options()[n] != 0 {
			names = append(names, n)
		}
	}
	return names
}

// Parse turns a mount of a bundle into a Mount. The field names the mount in errors.
func Parse(s specs.Mount, field string) (Mount, error) {
	if !path.IsAbs(s.Destination) {
		return Mount{}, fmt.Errorf("%s.destination: %q is not an absolute path", field, s.Destination)
	}
	if len(s.UIDMappings)+len(s.GIDMappings) > 0 {
		return Mount{}, fmt.Errorf("%s.uidMappings: id-mapped mounts are not supported", field)
	}
	m := Mount{Type: s.Type, Source: s.Source, Target: path.Clean(s.Destination)}
	if err := m.parseOptions(s.Options, field); err != nil {
		return Mount{}, err
	}
	switch m.Type {
	case "tmpfs", "sysfs", "proc", "devpts", "mqueue", "cgroup":
		m.Source = ""
	case "cgroup2":
		m.Type, m.Source = "cgroup", ""
	case "bind", "none", "":
		if m.Type != "bind" {
			return Mount{}, fmt.Errorf("%s.type: %q is not a file system; for a bind mount give the option bind or rbind", field, s.Type)
		}
		if !path.IsAbs(m.Source) {
			return Mount{}, fmt.Errorf("%s.source: %q is not an absolute path", field, s.Source)
		}
	default:
		return Mount{}, fmt.Errorf("%s.type: %q is not supported (tmpfs, bind, proc, sysfs, devpts, mqueue, cgroup are)", field, s.Type)
	}
	return m, nil
}

func (m *Mount) parseOptions(words []string, field string) error {
	flags := options()
	propagation := map[string]uintptr{
		"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
		"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
		"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	}
	clears := map[string]string{"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync", "atime": "noatime", "diratime": "nodiratime", "norelatime": "relatime"}
	var data []string
	for _, w := range words {
		switch {
		case w == "bind" || w == "rbind":
			m.Type, m.Recursive = "bind", w == "rbind"
		case w == "defaults" || w == "":
		case w == "rro":
			m.RecursiveReadOnly = true
		case flags[w] != 0:
			m.Flags |= flags[w]
		case clears[w] != "":
			m.Flags &^= flags[clears[w]]
		case propagation[w] != 0:
			m.Propagation = propagation[w]
		case w == "idmap" || w == "ridmap" || w == "tmpcopyup" || strings.HasPrefix(w, "r") && (flags[w[1:]] != 0 || clears[w[1:]] != ""):
			return fmt.Errorf("%s.options: %q is not supported", field, w)
		default:
			data = append(data, w)
		}
	}
	if m.Type == "bind" && len(data) > 0 {
		return fmt.Errorf("%s.options: %q means nothing for a bind mount", field, data[0])
	}
	m.Data = strings.Join(data, ",")
	return nil
}
