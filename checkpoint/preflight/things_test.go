package preflight

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// thing is something that a container may hold, and what is to be said of it.
type thing struct {
	take func(arg string) (held, error)
	kind string   // of the finding; "" is none
	mark string   // "blocks", "lost", or "" for a remark
	also []string // kinds that come with it
	more func(Options) bool
	wait func(proc.Status) bool // for this state of the process; the box cannot say when it comes
	// What CRIU does is not to be asked: it depends on the moment, or it is
	// right about the dump and wrong about the restore.
	notDumped bool
}

// The things that only other tests than TestThings use.
func special(name string) bool { return name == "churn" }

const blocks, lost = "blocks", "lost"

// things are the cases of TestThings. Each comes with the name under which the
// box is told to take it.
func things() map[string]thing {
	all := map[string]thing{}
	for _, group := range []map[string]thing{fineThings(), fileThings(), mountThings(), socketThings(), unixThings(), taskThings(), watchThings()} {
		for name, t := range group {
			all[name] = t
		}
	}
	return all
}

// fineThings are those that CRIU saves.
func fineThings() map[string]thing {
	fine := func(take func() (int, error)) thing {
		return thing{take: func(string) (held, error) { fd, err := take(); return held{FD: fd}, err }}
	}
	return map[string]thing{
		"nothing": {take: func(string) (held, error) { return held{}, nil }},
		"kinds of descriptors": {take: func(string) (held, error) {
			fds := []func() (int, error){
				func() (int, error) { return unix.Eventfd(1, 0) },
				func() (int, error) { return unix.TimerfdCreate(unix.CLOCK_MONOTONIC, 0) },
				func() (int, error) { return unix.Signalfd(-1, &unix.Sigset_t{}, 0) },
				func() (int, error) { return unix.MemfdCreate("x", 0) },
				func() (int, error) { return unix.PidfdOpen(os.Getpid(), 0) },
				func() (int, error) { return unix.Open("/proc/self/ns/net", unix.O_RDONLY, 0) },
				func() (int, error) { return unix.Open("/proc/self/status", unix.O_RDONLY, 0) },
				func() (int, error) { return unix.Open("/proc/sys/kernel/pid_max", unix.O_RDONLY, 0) },
				func() (int, error) { return unix.Open("/dev/full", unix.O_RDWR, 0) },
				func() (int, error) { return unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0) },
				func() (int, error) { return unix.Open("/etc", unix.O_PATH|unix.O_DIRECTORY, 0) },
				func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) },
				func() (int, error) { return unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0) },
				func() (int, error) { return unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0) },
				func() (int, error) { return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
				func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) },
				func() (int, error) {
					if err := unix.Mkfifo("/tmp/fifo", 0o600); err != nil {
						return -1, err
					}
					return unix.Open("/tmp/fifo", unix.O_RDWR, 0)
				},
				func() (int, error) { // shared anonymous memory, /dev/zero, a library
					if _, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS); err != nil {
						return -1, err
					}
					fd, err := unix.Open("/dev/zero", unix.O_RDWR, 0)
					if err == nil {
						_, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
					}
					return fd, err
				},
				func() (int, error) {
					id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
					if err == nil {
						_, err = unix.SysvShmAttach(id, 0, 0)
					}
					return -1, err
				},
				func() (int, error) {
					var context uintptr
					return -1, errnoOrNil(second(unix.Syscall(unix.SYS_IO_SETUP, 8, uintptr(unsafe.Pointer(&context)), 0)))
				},
				socketPairs,
			}
			for _, f := range fds {
				if _, err := f(); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
					return held{}, err
				}
			}
			return held{}, nil
		}},
		"pidfd of a child": {take: func(string) (held, error) {
			_, err := spawn("wait", func(c *exec.Cmd) { fd := -1; c.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd} })
			return held{}, err
		}},
		"peer in a child": {take: func(string) (held, error) {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return held{}, err
			}
			peer := os.NewFile(uintptr(pair[1]), "peer")
			defer peer.Close()
			_, err = spawn("wait", func(c *exec.Cmd) { c.ExtraFiles = append(c.ExtraFiles, peer) })
			return held{}, err
		}},
		"nested mount namespace": {take: unshared(unix.CLONE_NEWNS)},
		"chroot of a child":      {take: child("chroot")},
		"session of a dead leader": {take: func(string) (held, error) {
			_, err := spawn("orphan", func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} })
			return held{}, err
		}},
		"small deleted file":    fine(func() (int, error) { return deleted("/tmp/file", 1000) }),
		"file called (deleted)": fine(func() (int, error) { return unix.Open("/srv/x (deleted)", unix.O_CREAT|unix.O_RDWR, 0o600) }),
		"epoll of a duplicate": fine(func() (int, error) {
			ep, fd, err := polled()
			if err != nil {
				return -1, err
			}
			if _, err := unix.Dup(fd); err != nil {
				return -1, err
			}
			return ep, unix.Close(fd)
		}),
		"churn": {take: churn, notDumped: true},
		"many processes": {take: func(arg string) (held, error) {
			for range 99 {
				if _, err := spawn("files", func(c *exec.Cmd) { c.Env = append(c.Env, "GODEBUG=madvdontneed=1") }); err != nil {
					return held{}, err
				}
			}
			return held{}, children()["files"]("")
		}, notDumped: true},
		"listener and clients": {take: func(string) (held, error) { return serve(3, true) }, kind: "tcp-established",
			more: func(o Options) bool { return o.TCPEstablished && o.SkipInFlight }},
	}
}

func second(_, _ uintptr, errno syscall.Errno) unix.Errno { return errno }

func socketPairs() (int, error) {
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		pair, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
		if err != nil {
			return -1, err
		}
		if kind == unix.SOCK_SEQPACKET { // half a connection
			err = unix.Close(pair[1])
		}
		if err != nil {
			return -1, err
		}
	}
	// One that is on its way in a message.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	sent, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(sent[0]), nil, 0); err != nil {
		return -1, err
	}
	return sent[1], unix.Close(sent[0])
}

// child is a thing that a child of the box does, or is.
func child(name string, attr ...*syscall.SysProcAttr) func(string) (held, error) {
	return func(string) (held, error) {
		pid, err := spawn(name, func(c *exec.Cmd) {
			if len(attr) > 0 {
				c.SysProcAttr = attr[0]
			}
		})
		return held{FD: -1, Child: pid}, err
	}
}

func unshared(flag uintptr) func(string) (held, error) {
	return child("wait", &syscall.SysProcAttr{Unshareflags: flag})
}

// children are what a child of the box can do.
func children() map[string]func(string) error {
	return map[string]func(string) error{
		"wait":   func(string) error { return nil },
		"chroot": func(string) error { return unix.Chroot("/srv") },
		"files": func(string) error { // 50: as many of each as a server has
			for n := range 15 {
				if _, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0); err != nil {
					return err
				}
				if _, err := unix.Socket([]int{unix.AF_INET, unix.AF_UNIX, unix.AF_NETLINK}[n%3], unix.SOCK_DGRAM, 0); err != nil {
					return err
				}
				if _, err := unix.Eventfd(0, 0); err != nil {
					return err
				}
			}
			var pipe [2]int
			return unix.Pipe(pipe[:])
		},
		"tie": func(string) error {
			var set unix.CPUSet
			set.Set(1)
			return unix.SchedSetaffinity(os.Getpid(), &set)
		},
		"orphan": func(string) error {
			_, err := spawn("wait")
			if err == nil {
				os.Exit(0)
			}
			return err
		},
		"lose leader": func(string) error {
			onFirstThread(func() {
				_ = unix.Close(readyFD)
				_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // of the thread alone
			})
			select {}
		},
		"trace": func(string) error {
			runtime.LockOSThread() // the tracer is a thread
			pid, err := spawn("wait")
			if err != nil {
				return err
			}
			return unix.PtraceSeize(pid)
		},
	}
}

// onFirstThread runs f on the thread whose number is the process's.
func onFirstThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			f()
			return
		}
		onFirstThread(f)
		select {} // keep this thread from being tried again
	}()
}

func deleted(path string, size int) (int, error) {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR, 0o600)
	if err != nil {
		return -1, err
	}
	if _, err := unix.Write(fd, make([]byte, size)); err != nil {
		return -1, err
	}
	return fd, unix.Unlink(path)
}

// polled is an epoll that watches one end of a pipe.
func polled() (epoll, fd int, err error) {
	epoll, fd, _, err = polledPipe()
	return epoll, fd, err
}

func polledPipe() (epoll, fd, other int, err error) {
	if epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return -1, -1, -1, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, -1, err
	}
	return epoll, pipe[0], pipe[1], unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, pipe[0], &unix.EpollEvent{Events: unix.EPOLLIN})
}

// serve listens and connects to itself.
func serve(clients int, accept bool) (held, error) {
	if err := loopbackUp(); err != nil {
		return held{}, err
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return held{}, err
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return held{}, err
	}
	if err := unix.Listen(l, 10); err != nil {
		return held{}, err
	}
	first := l
	for n := range clients {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return held{}, err
		}
		if err := unix.Connect(c, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return held{}, err
		}
		if accept {
			if _, _, err := unix.Accept(l); err != nil {
				return held{}, err
			}
			if n == 0 {
				first = c
			}
		}
	}
	return held{FD: first}, nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	_, err = net.InterfaceByName("lo")
	return err
}
