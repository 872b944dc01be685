package confine

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Proc is a procfs that nothing in a root filesystem can redirect
// (CVE-2025-52881): a mount of its own that is attached nowhere, so that no
// path leads to it and nothing is mounted over its files.
type Proc struct {
	root *os.File
}

// OpenProc gives the procfs of the caller's pid namespace. Where the kernel
// lacks fsopen(2) (before 5.2), or forbids a fresh procfs (in a user
// namespace whose own /proc is partly masked: mount_too_revealing in
// fs/namespace.c), it is /proc, with the same checks at every open.
func OpenProc() (*Proc, error) {
	root, err := mountProc()
	if err != nil {
		cause := err
		root, err = os.OpenFile("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open a procfs: %w, and %w", cause, err)
		}
	}
	if err := isProcRoot(root); err != nil {
		root.Close()
		return nil, fmt.Errorf("open a procfs: %w", err)
	}
	return &Proc{root}, nil
}

// Close gives the mount up.
func (p *Proc) Close() error { return p.root.Close() }

func mountProc() (*os.File, error) {
	context, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(fd), "procfs"), nil
}

func isProcRoot(f *os.File) error {
	if err := isProc(f); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	const procRootIno = 1 // PROC_ROOT_INO, fs/proc/internal.h and later linux/proc_ns.h
	if st.Ino != procRootIno {
		return fmt.Errorf("%s is not the root of a procfs", f.Name())
	}
	return nil
}

func isProc(f *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if int64(fs.Type) != unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("%s is not on a procfs (file system %#x)", f.Name(), fs.Type)
	}
	return nil
}

// open opens a file of this procfs, by a path that crosses no mount and
// follows no link.
func (p *Proc) open(name string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS |
			unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(int(p.root.Fd()), name, &how)
	for err == unix.EINTR || err == unix.EAGAIN {
		fd, err = unix.Openat2(int(p.root.Fd()), name, &how)
	}
	if err == unix.ENOSYS || err == unix.EPERM {
		fd, err = p.openEach(name, flags)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), "/proc/"+name)
	if err := isProc(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openEach does openat2's work on kernels before 5.6, less well: what is
// mounted over a name betrays itself by another device, or by the root inode
// of another procfs, but another file of the same procfs does not. So write
// before anything of the container's image is mounted.
func (p *Proc) openEach(name string, flags int) (int, error) {
	var rootStat, st unix.Stat_t
	if err := unix.Fstat(int(p.root.Fd()), &rootStat); err != nil {
		return -1, err
	}
	at := int(p.root.Fd())
	defer func() {
		if at != int(p.root.Fd()) {
			unix.Close(at)
		}
	}()
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if part == "" || part == "." || part == ".." {
			return -1, unix.EXDEV
		}
		how := unix.O_PATH | unix.O_DIRECTORY
		if i == len(parts)-1 {
			how = flags
		}
		fd, err := unix.Openat(at, part, how|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		if at != int(p.root.Fd()) {
			unix.Close(at)
		}
		at = fd
		if err := unix.Fstat(at, &st); err != nil {
			return -1, err
		}
		if st.Dev != rootStat.Dev || st.Ino == rootStat.Ino {
			return -1, unix.EXDEV
		}
	}
	fd := at
	at = int(p.root.Fd())
	return fd, nil
}

// openSelf opens a file of the calling process.
func (p *Proc) openSelf(name string, flags int) (*os.File, error) {
	// "self" is a symbolic link: read it instead of following it. It also
	// is right where /proc belongs to another pid namespace.
	buf := make([]byte, 32)
	n, err := unix.Readlinkat(int(p.root.Fd()), "self", buf)
	if err != nil {
		return nil, &os.PathError{Op: "readlink", Path: "/proc/self", Err: err}
	}
	return p.open(string(buf[:n])+"/"+name, flags)
}

// SetOOMScoreAdj sets the calling process's oom_score_adj, which its children
// inherit.
func SetOOMScoreAdj(score int) error {
	p, err := OpenProc()
	if err != nil {
		return fmt.Errorf("oom_score_adj %d: %w", score, err)
	}
	defer p.Close()
	if score < -1000 || score > 1000 {
		return fmt.Errorf("oom_score_adj %d: not between -1000 and 1000", score)
	}
	f, err := p.openSelf("oom_score_adj", unix.O_WRONLY)
	if err != nil {
		return fmt.Errorf("oom_score_adj %d: %w", score, err)
	}
	defer f.Close()
	_, err = unix.Write(int(f.Fd()), []byte(strconv.Itoa(score)))
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("oom_score_adj %d: %w (below the value it was started with needs CAP_SYS_RESOURCE)", score, err)
	}
	if err != nil {
		return fmt.Errorf("oom_score_adj %d: %w", score, err)
	}
	return nil
}
