package preflight

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

func socketThings() map[string]thing {
	socket := func(family, kind, protocol int) func() (int, error) {
		return func() (int, error) { return unix.Socket(family, kind, protocol) }
	}
	return map[string]thing{
		"mptcp": at("mptcp", blocks, socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)),
		"go's default listener": {kind: "mptcp", mark: blocks, take: func(string) (held, error) {
			if err := loopbackUp(); err != nil {
				return held{}, err
			}
			l, err := net.Listen("tcp", "127.0.0.1:80")
			if err != nil {
				return held{}, err
			}
			raw, err := l.(*net.TCPListener).SyscallConn()
			if err != nil {
				return held{}, err
			}
			h := held{}
			err = raw.Control(func(fd uintptr) { h.FD = int(fd) })
			runtime.SetFinalizer(l, nil)
			kept = append(kept, l)
			return h, err
		}},
		"vsock": at("vsock", blocks, socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)),
		"xdp":   at("socket-family", blocks, socket(unix.AF_XDP, unix.SOCK_RAW, 0)),
		"waiting clients": with(thing{kind: "tcp-in-flight", mark: lost, also: []string{"tcp-established"}, take: func(string) (held, error) { return serve(2, false) }},
			func(o Options) bool { return o.SkipInFlight }),
		"unread datagram": {kind: "udp-queue", mark: lost, take: func(string) (held, error) {
			if err := loopbackUp(); err != nil {
				return held{}, err
			}
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return held{}, err
			}
			self := &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}}
			if err := unix.Bind(s, self); err != nil {
				return held{}, err
			}
			return held{FD: s}, unix.Sendto(s, []byte("x"), 0, self)
		}},
		"signed connection": {kind: "tcp-md5", mark: lost, also: []string{"tcp-established"}, take: func(string) (held, error) {
			h, err := serve(1, true)
			if err != nil {
				return h, err
			}
			sig := unix.TCPMD5Sig{Keylen: 3}
			sig.Addr.Family = unix.AF_INET
			copy((*[16]byte)(unsafe.Pointer(&sig.Addr))[4:], []byte{127, 0, 0, 1})
			sig.Key[0] = 'k'
			return h, unix.SetsockoptTCPMD5Sig(h.FD, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig)
		}},
		"netlink with messages": {kind: "netlink-data", mark: blocks, take: func(string) (held, error) {
			s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
			if err != nil {
				return held{}, err
			}
			if err := unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
				return held{}, err
			}
			return held{FD: s}, loopbackUp()
		}},
		"netlink of a high group": {kind: "netlink-groups", mark: blocks, take: func(string) (held, error) {
			s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
			if err != nil {
				return held{}, err
			}
			if err := unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return held{}, err
			}
			return held{FD: s}, unix.SetsockoptInt(s, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, 34)
		}},
	}
}

var kept []any

func unixListener(path string) (int, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(s, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(s, 5)
	}
	return s, err
}

func unixClient(path string, kind int) (int, error) {
	s, err := unix.Socket(unix.AF_UNIX, kind, 0)
	if err == nil {
		err = unix.Connect(s, &unix.SockaddrUnix{Name: path})
	}
	return s, err
}

func hungUp(kind int) func() (int, error) {
	return func() (int, error) {
		pair, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
		if err != nil {
			return -1, err
		}
		return pair[0], unix.Close(pair[1])
	}
}

func unixThings() map[string]thing {
	waiting := func(send, hangUp bool) func() (int, error) {
		return func() (int, error) {
			l, err := unixListener("/tmp/socket")
			if err != nil {
				return -1, err
			}
			c, err := unixClient("/tmp/socket", unix.SOCK_STREAM)
			if err != nil {
				return -1, err
			}
			switch {
			case send:
				_, err = unix.Write(c, []byte("x"))
				return c, err
			case hangUp:
				return l, unix.Close(c)
			}
			return c, nil
		}
	}
	return map[string]thing{
		"unix clients that wait":            at("", "", waiting(false, false)),
		"unix clients that wait and talk":   at("unix-in-flight", blocks, waiting(true, false)),
		"unix clients that hung up":         at("unix-in-flight", blocks, waiting(false, true)),
		"unix stream whose peer hung up":    at("", "", hungUp(unix.SOCK_STREAM)),
		"unix datagrams whose peer hung up": at("", "", hungUp(unix.SOCK_DGRAM)),
		"unix datagrams to a name": at("", "", func() (int, error) {
			s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
			if err == nil {
				err = unix.Bind(s, &unix.SockaddrUnix{Name: "/tmp/log"})
			}
			if err != nil {
				return -1, err
			}
			return unixClient("/tmp/log", unix.SOCK_DGRAM)
		}),
	}
}

func taskThings() map[string]thing {
	of := func(kind, mark string, take func(string) (held, error)) thing {
		return thing{kind: kind, mark: mark, take: take}
	}
	return map[string]thing{
		"nested network namespace": {kind: "namespace-nested", mark: blocks, take: unshared(unix.CLONE_NEWNET), notDumped: true},
		"nested uts namespace":     of("namespace-nested", blocks, unshared(unix.CLONE_NEWUTS)),
		"nested ipc namespace":     of("namespace-nested", blocks, unshared(unix.CLONE_NEWIPC)),
		"nested cgroup namespace":  of("namespace-nested", blocks, unshared(unix.CLONE_NEWCGROUP)),
		"nested time namespace":    of("namespace-nested", blocks, unshared(unix.CLONE_NEWTIME)),
		"nested user namespace":    of("namespace-nested", blocks, unshared(unix.CLONE_NEWUSER)),
		"nested pid namespace":     of("namespace-nested", blocks, child("wait", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID})),
		"traced":                   of("traced", blocks, traced),
		"another user":             of("rlimit", blocks, child("wait", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000}})),
		"another group":            of("rlimit", blocks, child("wait", &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: 1000}})),
		"tied child":               of("affinity", lost, child("tie")),
		"chroot":                   of("mount-task-root", blocks, func(string) (held, error) { return held{FD: -1, Path: "/srv"}, unix.Chroot("/srv") }),
		"descriptor of a namespace that nobody is in": of("namespace-descriptor", blocks, func(string) (held, error) {
			h, err := unshared(unix.CLONE_NEWUTS)("")
			if err != nil {
				return h, err
			}
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/uts", h.Child), unix.O_RDONLY, 0)
			if err == nil {
				err = unix.Kill(h.Child, unix.SIGKILL)
			}
			if err == nil {
				_, err = unix.Wait4(h.Child, nil, 0, nil)
			}
			return held{FD: fd}, err
		}),
		"zombie of a thread leader": {kind: "zombie-threads", mark: blocks, take: child("lose leader"),
			wait: func(s proc.Status) bool { return s.State == "Z" }},
	}
}

// traced is a process whose parent traces it.
func traced(string) (held, error) {
	tracer, err := spawn("trace")
	if err != nil {
		return held{}, err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", tracer, tracer))
	for tid := tracer + 1; err == nil && len(data) == 0 && tid < tracer+20; tid++ {
		data, _ = os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", tracer, tid))
	}
	h := held{FD: -1}
	_, _ = fmt.Sscan(string(data), &h.Child)
	return h, err
}

func watchThings() map[string]thing {
	on := func(path string) func() (int, error) {
		return func() (int, error) {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return -1, err
			}
			return watched(path)
		}
	}
	told := func(path string) func(Options) bool {
		return func(o Options) bool { return len(o.IrmapPaths) == 1 && o.IrmapPaths[0] == path }
	}
	return map[string]thing{
		"watched directory of a tmpfs":  with(at("", "", on("/tmp/dir")), func(o Options) bool { return o.IrmapPaths == nil }),
		"watched directory of the root": with(at("", "", on("/srv/a/b")), told("/srv/a/b")),
		"watched directory from below":  with(at("", "", on("/usr/share/doc")), told("/usr/share/doc")),
		"watched terminals":             with(at("", "", on("/dev/pts")), told("/dev/pts")),
		"watched file of the root":      at("inotify", blocks, func() (int, error) { return watched("/etc/passwd") }),
		"watched directory that is gone": at("inotify", blocks, func() (int, error) {
			fd, err := on("/tmp/dir")()
			if err == nil {
				_, err = unix.Open("/tmp/dir", unix.O_RDONLY, 0)
			}
			if err == nil {
				err = os.Remove("/tmp/dir")
			}
			return fd, err
		}),
	}
}

func watched(path string) (int, error) {
	fd, err := unix.InotifyInit1(0)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, path, unix.IN_MODIFY)
	}
	return fd, err
}
