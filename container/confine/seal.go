package confine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// SealedSelf opens our own executable in a form that can be executed by
// whoever holds it, but written by nobody: without that, a container's root
// could reach the host's binary through /proc/PID/exe of the process that
// enters the container, and overwrite it (CVE-2019-5736).
//
// The way for a privileged caller is a detached overlay of two lower
// directories and nothing to write to, which the kernel can only read
// (EROFS) and which, unlike a read-only bind mount, has no writable mount
// below it to go back to. Where there is no overlayfs it is a sealed copy in
// memory. Execute it as /proc/self/fd/N, or by execveat(2).
func SealedSelf() (*os.File, error) {
	f, err := sealedOverlay()
	if err == nil {
		return f, nil
	}
	copied, copyErr := sealedCopy()
	if copyErr != nil {
		return nil, fmt.Errorf("seal our own executable: %w, and %w", err, copyErr)
	}
	return copied, nil
}

func sealedOverlay() (*os.File, error) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(self)
	second, err := otherDirectory(dir)
	if err != nil {
		return nil, err
	}
	mount, err := readOnlyOverlay(filepath.Clean(dir), second)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: self + " in an overlay", Err: err}
	}
	f := os.NewFile(uintptr(fd), self+" (sealed)")
	if err := sameFile(f, "/proc/self/exe"); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readOnlyOverlay mounts an overlay of lower directories, attached nowhere.
// It wants two where there is no upper one ("at least 2 lowerdir are needed
// while upperdir nonexistent", fs/overlayfs/super.c).
func readOnlyOverlay(first, second string) (int, error) {
	context, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen overlay", err)
	}
	defer unix.Close(context)
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	lower := escape.Replace(first) + ":" + escape.Replace(second)
	if err := unix.FsconfigSetString(context, "lowerdir", lower); err != nil {
		return -1, fmt.Errorf("overlay of %s: %w", lower, err)
	}
	// Two file systems would turn this on, and some kernels log about it.
	_ = unix.FsconfigSetString(context, "xino", "off")
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, fmt.Errorf("overlay of %s: %w", lower, err)
	}
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, os.NewSyscallError("fsmount overlay", err)
	}
	return fd, nil
}

// otherDirectory finds a second lower directory, which is never looked into:
// the executable is found in the first. Neither may contain the other.
func otherDirectory(dir string) (string, error) {
	for _, other := range []string{"/sys", "/dev", "/proc", "/etc", "/usr"} {
		st, err := os.Stat(other)
		if err != nil || !st.IsDir() || dir == "/" || strings.HasPrefix(dir, other+"/") {
			continue
		}
		return other, nil
	}
	return "", errors.New("no second lower directory for an overlay")
}

// sameFile compares what an overlay does not change. Inode and device differ
// (ovl_map_dev_ino), and whoever can exchange the file beside a running
// executable can exchange the executable as well.
func sameFile(f *os.File, path string) error {
	var a, b unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &a); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := unix.Stat(path, &b); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if a.Mode != b.Mode || a.Size != b.Size || a.Mtim != b.Mtim || a.Ctim != b.Ctim {
		return fmt.Errorf("%s is not %s any more", f.Name(), path)
	}
	return nil
}

// sealedCopy copies the executable into a memory file and seals it. It costs
// the size of the executable, in time and in memory.
func sealedCopy() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	st, err := self.Stat()
	if err != nil {
		return nil, err
	}
	// MFD_EXEC is Linux 6.3; without it the sysctl vm.memfd_noexec may take
	// the execute bit away.
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("crucible", flags|unix.MFD_EXEC)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("crucible", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "crucible (sealed copy)")
	if err := fillAndSeal(f, self, st.Size()); err != nil {
		f.Close()
		return nil, fmt.Errorf("copy %s: %w", st.Name(), err)
	}
	return f, nil
}

func fillAndSeal(f, from *os.File, size int64) error {
	if n, err := io.Copy(f, from); err != nil || n != size {
		return fmt.Errorf("%d of %d bytes: %w", n, size, errors.Join(err, io.ErrShortWrite))
	}
	if err := f.Chmod(0o555); err != nil {
		return err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("F_ADD_SEALS", err)
	}
	return nil
}
