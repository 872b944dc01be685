package inspect

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// bit is a flag and its name.
type bit struct {
	mask uint32
	name string
}

// bitNames are the names of the flags that are set; others are in base 16.
func bitNames(value uint32, bits []bit) []string {
	names := []string{}
	for _, b := range bits {
		if value&b.mask == b.mask {
			names = append(names, b.name)
			value &^= b.mask
		}
	}
	if value != 0 {
		names = append(names, fmt.Sprintf("%#x", value))
	}
	return names
}

// access is how a file was opened, by the lowest bits of the flags of open(2).
func access(flags uint32) string {
	switch {
	case flags&unix.O_PATH != 0:
		return "path"
	case flags&unix.O_ACCMODE == unix.O_WRONLY:
		return "w"
	case flags&unix.O_ACCMODE == unix.O_RDWR:
		return "rw"
	}
	return "r"
}

// openFlags are the other flags that say something of a file that is open.
// These and their numbers are of x86 and most others (asm-generic/fcntl.h).
func openFlags(flags uint32) (names []string) {
	for _, b := range []bit{{unix.O_APPEND, "append"}, {unix.O_NONBLOCK, "nonblock"}, {unix.O_DIRECT, "direct"}, {unix.O_ASYNC, "async"},
		{unix.O_SYNC, "sync"}, {unix.O_DSYNC, "dsync"}, {unix.O_NOATIME, "noatime"}} {
		if flags&b.mask == b.mask && !(b.name == "dsync" && flags&unix.O_SYNC == unix.O_SYNC) {
			names = append(names, b.name)
		}
	}
	return names
}

// epollEvents: epoll_ctl(2).
func epollEvents(events uint32) []string {
	return bitNames(events&^(unix.EPOLLERR|unix.EPOLLHUP), []bit{ // which are always waited for
		{unix.EPOLLIN, "in"}, {unix.EPOLLOUT, "out"}, {unix.EPOLLPRI, "pri"}, {unix.EPOLLRDHUP, "rdhup"},
		{unix.EPOLLRDNORM, "rdnorm"}, {unix.EPOLLRDBAND, "rdband"}, {unix.EPOLLWRNORM, "wrnorm"}, {unix.EPOLLWRBAND, "wrband"}, {unix.EPOLLMSG, "msg"},
		{unix.EPOLLET, "et"}, {unix.EPOLLONESHOT, "oneshot"}, {unix.EPOLLWAKEUP, "wakeup"}, {unix.EPOLLEXCLUSIVE, "exclusive"},
	})
}

// inotifyEvents: inotify(7).
func inotifyEvents(mask uint32) []string {
	return bitNames(mask, []bit{
		{unix.IN_ALL_EVENTS, "all"}, {unix.IN_ACCESS, "access"}, {unix.IN_MODIFY, "modify"}, {unix.IN_ATTRIB, "attrib"},
		{unix.IN_CLOSE_WRITE, "close_write"}, {unix.IN_CLOSE_NOWRITE, "close_nowrite"}, {unix.IN_OPEN, "open"},
		{unix.IN_MOVED_FROM, "moved_from"}, {unix.IN_MOVED_TO, "moved_to"}, {unix.IN_CREATE, "create"}, {unix.IN_DELETE, "delete"},
		{unix.IN_DELETE_SELF, "delete_self"}, {unix.IN_MOVE_SELF, "move_self"},
	})
}

// fanotifyEvents: fanotify_mark(2).
func fanotifyEvents(mask uint32) []string {
	return bitNames(mask, []bit{
		{unix.FAN_ACCESS, "access"}, {unix.FAN_MODIFY, "modify"}, {unix.FAN_CLOSE_WRITE, "close_write"}, {unix.FAN_CLOSE_NOWRITE, "close_nowrite"},
		{unix.FAN_OPEN, "open"}, {unix.FAN_OPEN_PERM, "open_perm"}, {unix.FAN_ACCESS_PERM, "access_perm"}, {unix.FAN_ONDIR, "ondir"}, {unix.FAN_EVENT_ON_CHILD, "on_child"},
	})
}

// signalSet are the signals of a mask: bit 0 is signal 1.
func signalSet(mask uint64) []string {
	names := []string{}
	for n := range 64 {
		if mask>>n&1 != 0 {
			names = append(names, signalName(n+1))
		}
	}
	return names
}

func signalName(n int) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", n)
}

// clockName: clock_gettime(2).
func clockName(id uint32) string {
	names := map[uint32]string{unix.CLOCK_REALTIME: "realtime", unix.CLOCK_MONOTONIC: "monotonic", unix.CLOCK_BOOTTIME: "boottime",
		unix.CLOCK_REALTIME_ALARM: "realtime alarm", unix.CLOCK_BOOTTIME_ALARM: "boottime alarm"}
	return named(names, id, "clock")
}

// policyName: sched(7).
func policyName(id int) string {
	return named(map[int]string{unix.SCHED_NORMAL: "other", unix.SCHED_FIFO: "fifo", unix.SCHED_RR: "rr", unix.SCHED_BATCH: "batch",
		unix.SCHED_IDLE: "idle", unix.SCHED_DEADLINE: "deadline"}, id, "policy")
}

// namespaceName is the kind of a namespace by the flag of clone(2).
func namespaceName(flag uint32) string {
	return named(map[uint32]string{unix.CLONE_NEWNS: "mount", unix.CLONE_NEWPID: "pid", unix.CLONE_NEWNET: "network", unix.CLONE_NEWUTS: "uts",
		unix.CLONE_NEWIPC: "ipc", unix.CLONE_NEWUSER: "user", unix.CLONE_NEWCGROUP: "cgroup", unix.CLONE_NEWTIME: "time"}, flag, "namespace")
}

func named[N int | uint32](names map[N]string, n N, what string) string {
	if name, known := names[n]; known {
		return name
	}
	return fmt.Sprintf("%s %d", what, n)
}

// kindName is what we call a file that CRIU calls so (enum fd_types).
func kindName(criu string) string {
	names := map[string]string{"REG": "file", "INETSK": "socket", "UNIXSK": "socket", "PACKETSK": "socket", "NETLINKSK": "socket",
		"EVENTPOLL": "epoll", "TTY": "terminal", "NS": "namespace", "TUNF": "tun", "EXT": "outside", "BPFMAP": "bpf map"}
	if name, known := names[criu]; known {
		return name
	}
	return strings.ToLower(criu)
}
