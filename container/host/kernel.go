package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

func kernelProbes() []probe {
	const group, config = "kernel", "build the kernel with CONFIG_CHECKPOINT_RESTORE=y"
	return []probe{
		{group, "checkpoint/restore", true, askCheckpointRestore,
			"nothing can be restored", config},
		{group, "kcmp", true, func() answer { return verdict(tryKcmp()) },
			"what processes share cannot be seen", "build the kernel with CONFIG_KCMP=y"},
		{group, "task children", false, func() answer { return verdict(tryChildren(), unix.ENOENT) },
			"finding the process tree is slow", config},
		{group, "map_files", true, func() answer { return verdict(tryMapFiles(), unix.ENOENT) },
			"mapped files cannot be opened", config},
		{group, "choose a pid", true, askSetTid,
			"restored processes cannot get their pids back", config},
		{group, "pidfd", false, func() answer { return verdict(tryPidfd()) },
			"a process could be mistaken for one that has taken its pid", "Linux 5.6 or newer"},
		{group, "openat2", false, func() answer { return verdict(tryOpenat2()) },
			"paths inside a container's root are walked step by step", "Linux 5.6 or newer"},
		{group, "seccomp filter", false, func() answer { return verdict(trySeccomp(), unix.EINVAL, unix.EOPNOTSUPP) },
			"containers run without a system call filter", "build the kernel with CONFIG_SECCOMP_FILTER=y"},
	}
}

// tryCheckpointRestore asks for the size of prctl_mm_map. The question needs
// no rights and is answered only by a kernel with CONFIG_CHECKPOINT_RESTORE;
// any other takes the number for an unknown address to set, which is EPERM or
// EINVAL (kernel/sys.c, prctl_set_mm).
func tryCheckpointRestore() error {
	var size uint32
	if err := unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, uintptr(unsafe.Pointer(&size)), 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_MM_MAP_SIZE: %w", err)
	}
	return nil
}

// MissingError: the kernel was built without something that everything depends on.
type MissingError struct{ Config string }

func (e *MissingError) Error() string { return "the kernel was built without " + e.Config }

// Hint says what to do about it.
func (e *MissingError) Hint() string {
	return "boot a kernel that was built with " + e.Config + "=y; `crucible doctor` shows what else is missing"
}

// CheckpointRestore tells, in a microsecond, whether the kernel was
// built for it. CRIU would fail somewhere else on each kernel that was not.
func CheckpointRestore() error {
	if askCheckpointRestore().state == Missing {
		return &MissingError{"CONFIG_CHECKPOINT_RESTORE"}
	}
	return nil
}

func askCheckpointRestore() answer {
	return verdict(tryCheckpointRestore(), unix.EINVAL, unix.EPERM)
}

func tryKcmp() error {
	const kcmpVM = 1 // KCMP_VM, include/uapi/linux/kcmp.h
	self := uintptr(unix.Getpid())
	if _, _, errno := unix.Syscall6(unix.SYS_KCMP, self, self, kcmpVM, 0, 0, 0); errno != 0 {
		return fmt.Errorf("kcmp: %w", errno)
	}
	return nil
}

func tryChildren() error {
	_, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", unix.Getpid()))
	return err
}

// tryMapFiles opens the file of one of our own mappings, as CRIU does with a
// file that has been deleted. Following the link needs cap_sys_admin or
// cap_checkpoint_restore (fs/proc/base.c, proc_map_files_get_link).
func tryMapFiles() error {
	const dir = "/proc/self/map_files"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return errors.New(dir + ": empty")
	}
	fd, err := unix.Open(filepath.Join(dir, entries[0].Name()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return unix.Close(fd)
}

// cloneArgs is struct clone_args of clone3(2) as of Linux 5.7.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal uint64
	stack, stackSize, tls                         uint64
	setTID, setTIDSize, cgroup                    uint64
}

// askSetTid asks for a child whose pid is 1. There is one, so a kernel that
// can choose pids says EEXIST and makes no process (kernel/pid.c, alloc_pid).
// Kernels before 5.5 have only the older way, which races with other forks.
func askSetTid() answer {
	tid := int32(1)
	args := cloneArgs{
		exitSignal: uint64(unix.SIGCHLD),
		setTID:     uint64(uintptr(unsafe.Pointer(&tid))), setTIDSize: 1,
	}
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno == 0 && pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0) // cannot be; a child of Go must not go on
	}
	switch errno {
	case unix.EEXIST:
		return good("clone3")
	case unix.ENOSYS, unix.E2BIG, unix.EINVAL:
		file, err := os.OpenFile("/proc/sys/kernel/ns_last_pid", os.O_WRONLY, 0)
		if err != nil {
			return verdict(err, unix.ENOENT)
		}
		file.Close()
		return good("ns_last_pid")
	}
	return unknown(fmt.Errorf("clone3 with a chosen pid: %w", errno))
}

func tryPidfd() error {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != nil {
		return fmt.Errorf("pidfd_send_signal: %w", err)
	}
	return nil
}

func tryOpenat2() error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &how)
	if err != nil {
		return fmt.Errorf("openat2: %w", err)
	}
	return unix.Close(fd)
}

func trySeccomp() error {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
