package workload

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func identityCases() []Case {
	return []Case{
		{Name: "credentials", Question: "Do user, groups and supplementary groups of a process that is not root survive?",
			// Without it CRIU may not read the limits of such a process
			// (check_prlimit_permission in kernel/sys.c).
			Needs: []string{"rights/cap_sys_resource"}, program: credentials},
		{Name: "capabilities", Question: "Do the sets of capabilities survive, inheritable and ambient ones too?", program: capabilities},
		{Name: "no-new-privileges", Question: "Does a process keep no_new_privs, and another remain without?",
			define: func(d *definition) { d.Privileges = true }, program: noNewPrivileges},
		{Name: "securebits", Question: "Do the securebits of a process survive?", program: securebits},
		{Name: "seccomp-filter", Question: "Does a seccomp filter still decide?", Needs: []string{"kernel/seccomp filter"}, program: seccompFilter},
		{Name: "seccomp-strict", Question: "Does a process in strict seccomp mode survive, and stay in it?", Needs: []string{"kernel/seccomp filter"}, program: seccompStrict},
		{Name: "rlimits", Question: "Do resource limits survive, of every kind?", program: rlimits},
		{Name: "working-directory", Question: "Do working directory, root directory and umask survive?", program: workingDirectory},
	}
}

// become makes a forked child another user.
func become(id uintptr) {
	groups := [2]uint32{7, 8}
	unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups)), 0)
	unix.RawSyscall(unix.SYS_SETRESGID, id, id+1, id+2)
	unix.RawSyscall(unix.SYS_SETRESUID, id, id+1, id+2)
}

func credentials() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	pid, err := fork(func() { become(33); l.tell(0); pause() })
	if err != nil {
		return nil, err
	}
	if err := l.answers(1); err != nil {
		return nil, err
	}
	return unchanged(func() (string, error) { return status(pid, "Uid", "Gid", "Groups", "CapEff", "CapPrm") })
}

func capabilities() (func() error, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return nil, fmt.Errorf("capget: %w", err)
	}
	sets[0].Effective &^= 1 << unix.CAP_CHOWN
	sets[0].Permitted &^= 1 << unix.CAP_FSETID
	sets[0].Effective &^= 1 << unix.CAP_FSETID
	sets[0].Inheritable = 1<<unix.CAP_KILL | 1<<unix.CAP_SETUID
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return nil, fmt.Errorf("capset: %w", err)
	}
	err := first(
		unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_KILL, 0, 0),
		unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_MKNOD, 0, 0, 0))
	if err != nil {
		return nil, fmt.Errorf("prctl: %w", err)
	}
	return unchanged(func() (string, error) { return threadStatus("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") })
}

func noNewPrivileges() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	pid, err := fork(func() {
		unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
		l.tell(0)
		pause()
	})
	if err != nil {
		return nil, err
	}
	if err := l.answers(1); err != nil {
		return nil, err
	}
	check := func() error {
		set, err := status(pid, "NoNewPrivs")
		if err != nil {
			return err
		}
		unset, err := threadStatus("NoNewPrivs")
		return first(err, same("with", set, "NoNewPrivs:\t1\n"), same("without", unset, "NoNewPrivs:\t0\n"))
	}
	return check, check()
}

func securebits() (func() error, error) {
	const noRoot, keepCaps = 1 << 0, 1 << 4 // include/uapi/linux/securebits.h
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot|keepCaps, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("set securebits: %w", err)
	}
	return func() error {
		bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
		return first(err, same("securebits", bits, noRoot|keepCaps))
	}, nil
}

// filtered is the errno that the filter of the case gives.
func rlimits() (func() error, error) {
	const kinds = 16 // RLIM_NLIMITS
	for kind, soft := range map[int]uint64{unix.RLIMIT_NOFILE: 200, unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 1 << 40, unix.RLIMIT_MEMLOCK: 32 << 10} {
		var l unix.Rlimit
		if err := unix.Prlimit(0, kind, nil, &l); err != nil {
			return nil, fmt.Errorf("prlimit: %w", err)
		}
		l.Cur = soft
		if kind == unix.RLIMIT_NOFILE {
			l.Max = 300
		}
		if err := unix.Prlimit(0, kind, &l, nil); err != nil {
			return nil, fmt.Errorf("prlimit %d: %w", kind, err)
		}
	}
	return unchanged(func() (string, error) {
		out := ""
		for kind := range kinds {
			var l unix.Rlimit
			if err := unix.Prlimit(0, kind, nil, &l); err != nil {
				return "", fmt.Errorf("prlimit: %w", err)
			}
			out += fmt.Sprintln("limit", kind, l.Cur, l.Max)
		}
		return out, nil
	})
}

func workingDirectory() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll("/srv/cage/in", 0o755); err != nil {
		return nil, err
	}
	cage, in := []byte("/srv/cage\x00"), []byte("/in\x00")
	pid, err := fork(func() {
		unix.RawSyscall(unix.SYS_CHROOT, uintptr(unsafe.Pointer(&cage[0])), 0, 0)
		unix.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(&in[0])), 0, 0)
		unix.RawSyscall(unix.SYS_UMASK, 0o123, 0, 0)
		l.tell(0)
		pause()
	})
	if err != nil {
		return nil, err
	}
	if err := first(l.answers(1), os.Chdir("/srv/cage")); err != nil {
		return nil, err
	}
	unix.Umask(0o027)
	return unchanged(func() (string, error) {
		out, err := threadStatus("Umask")
		if err != nil {
			return "", err
		}
		theirs, err := status(pid, "Umask")
		if err != nil {
			return "", err
		}
		out += theirs
		for _, p := range []string{"self/cwd", "self/root", fmt.Sprintf("%d/cwd", pid), fmt.Sprintf("%d/root", pid)} {
			target, err := os.Readlink("/proc/" + p)
			if err != nil {
				return "", err
			}
			out += p + " " + target + "\n"
		}
		return out, nil
	})
}
