package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func namespaceProbes() []probe {
	const group, remedy = "namespaces", "build the kernel with CONFIG_NAMESPACES=y and all that it offers"
	kind := func(name string, flag uintptr, required bool, costs string) probe {
		return probe{group, name, required, func() answer {
			return namespaceVerdict(tryChild(&syscall.SysProcAttr{Cloneflags: flag}))
		}, costs, remedy}
	}
	return []probe{
		kind("pid", unix.CLONE_NEWPID, true, "no containers"),
		kind("mnt", unix.CLONE_NEWNS, true, "no containers"),
		kind("uts", unix.CLONE_NEWUTS, true, "no containers with a host name of their own"),
		kind("ipc", unix.CLONE_NEWIPC, true, "no containers with System V objects of their own"),
		kind("net", unix.CLONE_NEWNET, true, "no containers with a network of their own"),
		kind("cgroup", unix.CLONE_NEWCGROUP, false, "a container sees where its cgroups are on the host"),
		kind("user", unix.CLONE_NEWUSER, false, "root in a container is root on the host"),
		// CLONE_NEWTIME is taken by unshare(2) only: in clone(2) its bit belongs
		// to the exit signal.
		{group, "time", false, askTime, "no containers with clocks of their own: a restored one sees them jump to the new host's", "boot Linux 6.2 or newer, with CONFIG_TIME_NS=y"},
		{group, "all of them at once", false, func() answer {
			return namespaceVerdict(tryChild(&syscall.SysProcAttr{
				Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
					unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUSER,
				Unshareflags: unix.CLONE_NEWTIME,
				UidMappings:  []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
				GidMappings:  []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
			}))
		}, "a container has to do without some of them", "see the rows above"},
		{group, "user, without rights", false, askUnprivileged,
			"containers cannot be made by a user without rights; nothing here needs it", "none needed; else sysctl user.max_user_namespaces=10000"},
	}
}

// tryChild makes a child and lets it run nothing: below a device there is no
// program, so exec(2) fails with ENOTDIR, an error that nothing before it can
// return. Any other error is that of clone(2), unshare(2) or the id maps.
// The syscall package has reaped the child by then.
func tryChild(attr *syscall.SysProcAttr) error {
	pid, err := syscall.ForkExec("/dev/null/none", []string{"none"}, &syscall.ProcAttr{Sys: attr})
	switch {
	case err == nil:
		unix.Kill(pid, unix.SIGKILL)
		reap(pid)
		return errors.New("/dev/null/none: exists")
	case errors.Is(err, unix.ENOTDIR):
		return nil
	}
	return fmt.Errorf("clone: %w", err)
}

// reap waits for a killed child; a traced one may report its stop first.
func reap(pid int) {
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == nil && status.Stopped() || err == unix.EINTR {
			continue
		}
		return
	}
}

// namespaceVerdict knows clone(2)'s words: EINVAL, the kernel was built without
// it; ENOSPC, the limit in /proc/sys/user is reached (namespaces(7)).
func namespaceVerdict(err error) answer {
	a := verdict(err, unix.EINVAL, unix.ENOSPC, unix.EUSERS)
	if errors.Is(err, unix.ENOSPC) {
		a.remedy = "raise the limit in /proc/sys/user/max_*_namespaces"
	}
	return a
}

// askUnprivileged tries where it can; root would have to give up its rights for
// that, on one thread of many, and reads the settings instead. Debian's older
// kernels have the first, Ubuntu's the second (user_namespaces(7) the last).
func askUnprivileged() answer {
	if os.Geteuid() != 0 {
		return verdict(tryChild(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}), unix.EINVAL, unix.ENOSPC, unix.EPERM, unix.EACCES)
	}
	for _, setting := range []struct{ name, off string }{
		{"kernel/unprivileged_userns_clone", "0"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1"},
		{"user/max_user_namespaces", "0"},
	} {
		value, err := readSetting(setting.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return unknown(err)
		case value == setting.off:
			return missing("%s is %s", strings.ReplaceAll(setting.name, "/", "."), value)
		}
	}
	return good("")
}

// withUserNamespace gives f a user namespace with a map of its own. It belongs
// to a child that stops, traced, at the end of its exec: not one instruction
// of it has run when it is killed.
func withUserNamespace(f func(namespace *os.File) error) error {
	return onThread(func() error {
		pid, err := syscall.ForkExec("/proc/self/exe", []string{"none"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{
			Ptrace:      true,
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1}},
		}})
		if err != nil {
			return fmt.Errorf("make a user namespace: %w", err)
		}
		defer func() {
			unix.Kill(pid, unix.SIGKILL)
			reap(pid)
		}()
		namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
		if err != nil {
			return err
		}
		defer namespace.Close()
		return f(namespace)
	})
}
