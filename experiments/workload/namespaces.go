package workload

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crucible/checkpoint"
	"crucible/restore"
)

func namespaceCases() []Case {
	return []Case{
		{Name: "pid-namespace", Question: "Do processes keep the numbers that they have in their pid namespace?", program: pidNamespace},
		{Name: "mount-namespace", Question: "Do mounts that the container made itself come back, with their options?",
			define: func(d *definition) { d.CapAdd = []string{"SYS_ADMIN"} }, program: mountNamespace},
		{Name: "uts-namespace", Question: "Do the host name and the domain name, changed by the container, come back?",
			define: func(d *definition) { d.CapAdd = []string{"SYS_ADMIN"} }, program: utsNamespace},
		{Name: "ipc-namespace", Question: "Do the sysctls of an IPC namespace come back?",
			define: func(d *definition) { d.Sysctls = []string{"kernel.msgmax=4321", "kernel.shmmni=321"} }, program: sysctls("kernel/msgmax", "kernel/shmmni", "kernel/sem")},
		{Name: "net-namespace", Question: "Do loopback and sysctls of a network namespace come back?",
			define: func(d *definition) {
				d.Sysctls = []string{"net.ipv4.ip_local_port_range=40000 50000", "net.core.somaxconn=77"}
			},
			program: netNamespace},
		{Name: "cgroup-namespace", Question: "Does a process in a cgroup namespace see itself at its root again?", Needs: []string{"namespaces/cgroup"},
			define: func(d *definition) { d.CgroupNS = true }, program: cgroupNamespace},
		{Name: "user-namespace", Question: "Do id maps, ids and the owners of files in a user namespace survive?",
			Needs:  []string{"namespaces/user", "filesystems/id-mapped mounts", "criu/userns"},
			define: func(d *definition) { d.UserNS = "auto" }, program: userNamespace},
		{Name: "time-namespace", Question: "Does the monotonic clock of a time namespace go on from where it was?", Needs: []string{"namespaces/time", "criu/timens"},
			define: func(d *definition) { d.TimeOffsets = []string{"monotonic=1000000", "boottime=2000000"} }, program: timeNamespace},
		{Name: "all-namespaces", Question: "Does a container in fresh namespaces of all eight kinds come back in fresh ones?",
			Needs: []string{"namespaces/all of them at once", "filesystems/id-mapped mounts", "criu/userns", "criu/timens"},
			define: func(d *definition) {
				d.UserNS, d.CgroupNS, d.TimeOffsets = "auto", true, []string{"monotonic=1000000"}
			}, program: plain, plot: freshNamespaces},
	}
}

func pidNamespace() (func() error, error) {
	for range 3 {
		pid, err := fork(func() {})
		if err == nil {
			err = ended(pid, 0)
		}
		if err != nil {
			return nil, err
		}
	}
	child, err := fork(pause)
	if err != nil {
		return nil, err
	}
	return unchanged(func() (string, error) {
		if pid := os.Getpid(); pid != 1 {
			return "", fmt.Errorf("the first process is number %d", pid)
		}
		pids, err := processes()
		return fmt.Sprintf("child %d of processes %v", child, pids), err
	})
}

func mountNamespace() (func() error, error) {
	err := first(
		os.MkdirAll("/srv/from", 0o755), os.MkdirAll("/srv/to", 0o755),
		os.WriteFile("/srv/from/file", []byte("bound"), 0o644),
		unix.Mount("/srv/from", "/srv/to", "", unix.MS_BIND, ""),
		unix.Mount("", "/srv/to", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOEXEC, ""))
	if err != nil {
		return nil, err
	}
	return unchanged(func() (string, error) {
		text, err := os.ReadFile("/srv/to/file")
		if err != nil {
			return "", err
		}
		if err := os.WriteFile("/srv/to/new", nil, 0o644); err != unix.EROFS && !isErrno(err, unix.EROFS) {
			return "", fmt.Errorf("write to a read-only mount: %v", err)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		all := strings.Split(strings.TrimSpace(string(mounts)), "\n")
		var list []string
		for _, line := range all {
			fields := strings.Fields(line)
			if len(fields) < 9 {
				return "", fmt.Errorf("mountinfo: %q", line)
			}
			list = append(list, fields[4]+" "+fields[5]) // where, and its options
		}
		slices.Sort(list)
		return string(text) + "\n" + strings.Join(list, "\n"), err
	})
}

func utsNamespace() (func() error, error) {
	if err := first(unix.Sethostname([]byte("renamed")), unix.Setdomainname([]byte("domain.test"))); err != nil {
		return nil, err
	}
	return unchanged(func() (string, error) {
		var u unix.Utsname
		err := unix.Uname(&u)
		return unix.ByteSliceToString(u.Nodename[:]) + " " + unix.ByteSliceToString(u.Domainname[:]), err
	})
}

// sysctls is the program whose sysctls stay.
func sysctls(files ...string) program {
	return func() (func() error, error) {
		return unchanged(func() (string, error) {
			out := ""
			for _, f := range files {
				value, err := os.ReadFile("/proc/sys/" + f)
				if err != nil {
					return "", err
				}
				out += f + " " + string(value)
			}
			return out, nil
		})
	}
}

func netNamespace() (func() error, error) {
	lo := func() (string, error) {
		all, err := net.Interfaces()
		out := ""
		for _, i := range all {
			addresses, err := i.Addrs()
			if err != nil {
				return "", err
			}
			out += fmt.Sprintf("%s %d %v %v\n", i.Name, i.MTU, i.Flags, addresses)
		}
		return out, err
	}
	links, err := unchanged(lo)
	if err != nil {
		return nil, err
	}
	values, err := sysctls("net/ipv4/ip_local_port_range", "net/core/somaxconn")()
	return func() error { return first(links(), values()) }, err
}

func cgroupNamespace() (func() error, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err == nil && !strings.Contains(string(text), ":/\n") {
		err = fmt.Errorf("/proc/self/cgroup shows no root: %q", text)
	}
	return func() error {
		now, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasSuffix(line, ":/\n") && !strings.Contains(string(now), line) {
				return fmt.Errorf("%q is not the root any more: %q", line, now)
			}
		}
		return nil
	}, err
}

func userNamespace() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	child, err := fork(func() { become(33); l.tell(0); pause() })
	if err != nil {
		return nil, err
	}
	if err := first(l.answers(1), os.WriteFile("/srv/mine", nil, 0o600), os.WriteFile("/srv/theirs", nil, 0o600), os.Chown("/srv/theirs", 33, 34)); err != nil {
		return nil, err
	}
	return unchanged(func() (string, error) {
		out := ""
		for _, f := range []string{"uid_map", "gid_map", "setgroups"} {
			text, err := os.ReadFile("/proc/self/" + f)
			if err != nil {
				return "", err
			}
			out += f + " " + string(text)
		}
		for _, f := range []string{"/srv/mine", "/srv/theirs"} {
			var st unix.Stat_t
			if err := unix.Stat(f, &st); err != nil {
				return "", err
			}
			out += fmt.Sprintln(f, st.Uid, st.Gid)
		}
		ids, err := status(child, "Uid", "Gid", "Groups", "CapEff")
		return out + ids, err
	})
}

func timeNamespace() (func() error, error) {
	clock := func(id int32) (time.Duration, error) {
		var ts unix.Timespec
		err := unix.ClockGettime(id, &ts)
		return time.Duration(ts.Nano()), err
	}
	clocks := []int32{unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME}
	var before [2]time.Duration
	for i, id := range clocks {
		var err error
		if before[i], err = clock(id); err != nil {
			return nil, err
		}
	}
	return func() error {
		for i, id := range clocks {
			after, err := clock(id)
			if err != nil {
				return err
			}
			if passed := after - before[i]; passed <= 0 || passed > time.Hour {
				return fmt.Errorf("clock %d: %v passed", id, passed)
			}
		}
		return nil
	}, nil
}

// freshNamespaces looks from outside: none of the container's namespaces is
// ours, nor any that it had before.
func freshNamespaces(ctx context.Context, s *stage) error {
	before, err := s.namespaces()
	if err != nil {
		return err
	}
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	after, err := s.namespaces()
	if err != nil {
		return err
	}
	s.r.Step = StepCheck
	if len(before) != len(after) {
		return fmt.Errorf("namespaces %v, before %v", after, before)
	}
	return s.goOn(ctx)
}

// namespaces are the container's, and an error if one is ours.
func (s *stage) namespaces() (map[string]string, error) {
	all := map[string]string{}
	for _, kind := range []string{"pid", "mnt", "uts", "ipc", "net", "cgroup", "user", "time"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", s.box.State.Init.Pid, kind))
		if err != nil {
			return nil, err
		}
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			return nil, err
		}
		if theirs == ours {
			return nil, fmt.Errorf("the container's %s namespace is ours", kind)
		}
		all[kind] = theirs
	}
	return all, nil
}
