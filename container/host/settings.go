package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func settingProbes() []probe {
	const group, proc = "settings", "mount -t proc proc /proc"
	return []probe{
		{group, "ptrace", true, askYama,
			"no task can be checkpointed", "kernel.yama.ptrace_scope = 3 holds until the next boot: set it to 0, 1 or 2 there"},
		{group, "pipe size", false, askPipeSize,
			"no lazy pages from another host", "sysctl fs.pipe-max-size=33554432"},
		{group, "pids", false, func() answer { return askNumber("kernel/pid_max", "%d") },
			"it is not known how many processes there can be", proc},
		{group, "connection tracking", false, askConntrack,
			"it is not known what a container with network namespaces inside of its own costs", proc},
		{group, "io_uring", false, askIOUring,
			"a program that maps a ring cannot be checkpointed", "sysctl kernel.io_uring_disabled=2 keeps programs from it (for the whole host)"},
		{group, "userfaultfd, without rights", false, askUnprivilegedUserfaultfd,
			"a program that uses one cannot be checkpointed", "sysctl vm.unprivileged_userfaultfd=0"},
	}
}

// readSetting reads a file below /proc/sys.
func readSetting(name string) (string, error) {
	value, err := os.ReadFile(filepath.Join("/proc/sys", name))
	return strings.TrimSpace(string(value)), err
}

func readNumber(name string) (uint64, error) {
	text, err := readSetting(name)
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return value, nil
}

func askNumber(name, format string) answer {
	value, err := readNumber(name)
	if err != nil {
		return unknown(err)
	}
	return good(format, value)
}

// askYama: scope 3 forbids attaching to everybody, root included
// (Documentation/admin-guide/LSM/Yama.rst).
func askYama() answer {
	scope, err := readSetting("kernel/yama/ptrace_scope")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return good("no restriction")
	case err != nil:
		return unknown(err)
	case scope == "3":
		return missing("ptrace_scope is 3")
	}
	return good("ptrace_scope is %s", scope)
}

// remotePipe is what CRIU asks for when it serves memory over a network
// (F_SETPIPE_SZ); only cap_sys_resource may go above the limit (pipe(7)).
const remotePipe = 32 << 20

func askPipeSize() answer {
	limit, err := readNumber("fs/pipe-max-size")
	if err != nil {
		return unknown(err)
	}
	if limit < remotePipe && capability(unix.CAP_SYS_RESOURCE)().state != Good {
		return missing("fs.pipe-max-size is %d, and no cap_sys_resource to go beyond it", limit)
	}
	return good("fs.pipe-max-size is %d", limit)
}

// askConntrack: listing the connections of one network namespace walks the
// whole host's table, 0.08 us for each bucket.
func askConntrack() answer {
	buckets, err := readNumber("net/netfilter/nf_conntrack_buckets")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return good("not in use")
	case err != nil:
		return unknown(err)
	}
	a := good("%d buckets", buckets)
	if cost := buckets * 8 / 100_000; cost >= 2 {
		a.costs = fmt.Sprintf("about %d ms when a container has network namespaces inside of its own", cost)
		a.remedy = "sysctl net.netfilter.nf_conntrack_buckets=16384 (for the whole host)"
	}
	return a
}

// askIOUring asks for a ring of no size, which EINVAL refuses before anything
// is made; ENOSYS and EPERM come first (io_uring/io_uring.c).
func askIOUring() answer {
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 0, 0, 0)
	switch errno {
	case unix.ENOSYS:
		return good("not there")
	case unix.EPERM:
		return good("switched off")
	}
	return answer{state: Good, detail: "on", costs: "a program that maps a ring cannot be checkpointed",
		remedy: "sysctl kernel.io_uring_disabled=2 keeps programs from it (for the whole host)"}
}

func askUnprivilegedUserfaultfd() answer {
	value, err := readSetting("vm/unprivileged_userfaultfd")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return good("not there")
	case err != nil:
		return unknown(err)
	case value == "0":
		return good("off")
	}
	return answer{state: Good, detail: "on", costs: "a program that uses one cannot be checkpointed",
		remedy: "sysctl vm.unprivileged_userfaultfd=0"}
}
