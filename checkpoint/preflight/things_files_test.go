package preflight

import (
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// at is a thing with one descriptor.
func at(kind, mark string, take func() (int, error)) thing {
	return thing{kind: kind, mark: mark, take: func(string) (held, error) { fd, err := take(); return held{FD: fd}, err }}
}

func with(t thing, more func(Options) bool) thing {
	t.more = more
	return t
}

func comes(t thing, with ...string) thing {
	t.also = with
	return t
}

// call is a system call that gives a descriptor.
func call(number uintptr, args ...uintptr) func() (int, error) {
	return func() (int, error) {
		var a [5]uintptr
		copy(a[:], args)
		fd, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], 0)
		if errno != 0 {
			return -1, errno
		}
		return int(fd), nil
	}
}

func uringSetup() (int, error) {
	var params [120]byte
	return call(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&params)))()
}

func queue() (int, error) {
	name := []byte("crucible\x00")
	return call(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_CREAT|unix.O_RDWR, 0o600)()
}

func open(path string, flags int) func() (int, error) {
	return func() (int, error) { return unix.Open(path, flags, 0o600) }
}

func fileThings() map[string]thing {
	return map[string]thing{
		"io_uring": at("io-uring", blocks, uringSetup),
		"mapped io_uring": at("io-uring", blocks, func() (int, error) {
			fd, err := uringSetup()
			if err != nil {
				return -1, err
			}
			if _, err := unix.Mmap(fd, 0x10000000 /* IORING_OFF_SQES */, 8*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
				return -1, err
			}
			return -1, unix.Close(fd)
		}),
		"userfaultfd": at("userfaultfd", blocks, call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC)),
		"landlock": at("landlock", blocks, func() (int, error) {
			handled := [2]uint64{1}
			return call(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), 8, 0)()
		}),
		"perf": at("perf", blocks, func() (int, error) {
			return unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: 112}, 0, -1, -1, 0)
		}),
		"bpf program":         at("bpf", blocks, bpfProgram),
		"seccomp listener":    at("seccomp-notify", blocks, seccompListener),
		"file system context": at("anon-inode", blocks, func() (int, error) { return unix.Fsopen("tmpfs", 0) }),
		"pidfd of a thread":   at("pidfd", blocks, func() (int, error) { return unix.PidfdOpen(os.Getpid(), unix.PIDFD_THREAD) }),
		"secret memory":       at("secretmem", blocks, secretMemory),
		"mapped secret memory": at("secretmem", blocks, func() (int, error) {
			fd, err := secretMemory()
			if err == nil {
				if _, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED); err == nil {
					err = unix.Close(fd)
				}
			}
			return -1, err
		}),
		"open message queue": at("mqueue", blocks, func() (int, error) {
			fd, err := queue()
			if err == nil {
				name := []byte("crucible\x00")
				_, err = call(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(&name[0])))()
			}
			return fd, err
		}),
		"open message queue with a name": {kind: "mqueue", mark: blocks, take: func(string) (held, error) {
			fd, err := queue()
			return held{FD: fd, Path: "/dev/mqueue/crucible"}, err
		}},
		"message queue": {kind: "mqueue", mark: blocks, take: func(string) (held, error) {
			fd, err := queue()
			if err == nil {
				err = unix.Close(fd)
			}
			return held{FD: -1, Path: "/dev/mqueue/crucible"}, err
		}},
		"host file":   at("file-outside", blocks, func() (int, error) { return hostFD, nil }),
		"fuse device": at("device", blocks, open("/dev/fuse", unix.O_RDWR)),
		"tun device":  at("tun", blocks, open("/dev/tun", unix.O_RDWR)),
		"O_PATH socket": at("descriptor", blocks, func() (int, error) {
			s, err := unixListener("/tmp/socket")
			if err != nil {
				return s, err
			}
			return unix.Open("/tmp/socket", unix.O_PATH, 0)
		}),
		"packet pipe": at("pipe-packets", blocks, func() (int, error) {
			var p [2]int
			err := unix.Pipe2(p[:], unix.O_DIRECT)
			return p[1], err
		}),
		"deleted file": with(at("ghost-limit", "", func() (int, error) { return deleted("/tmp/file", 3<<20) }),
			func(o Options) bool { return o.GhostLimit >= 3<<20 && o.GhostLimit < 64<<20 }),
		"deleted program": with(thing{kind: "ghost-limit", take: func(string) (held, error) {
			// The box's own: it is on a tmpfs and executing.
			return held{FD: -1, Path: "/run/box (deleted)"}, os.Remove("/run/box")
		}}, func(o Options) bool { return o.GhostLimit > 4<<20 }),
		"deleted file with a name": with(at("link-remap", "", func() (int, error) {
			fd, err := unix.Open("/srv/one", unix.O_CREAT|unix.O_RDWR, 0o600)
			if err == nil {
				err = os.Link("/srv/one", "/srv/two")
			}
			if err == nil {
				err = os.Remove("/srv/one")
			}
			return fd, err
		}), func(o Options) bool { return o.LinkRemap }),
		"deleted file of the layer below": with(comes(at("link-remap", "", func() (int, error) {
			path, err := largeHostFile()
			if err != nil {
				return -1, err
			}
			fd, err := unix.Open(path, unix.O_RDONLY, 0)
			if err == nil {
				err = os.Remove(path)
			}
			return fd, err
		}), "ghost-limit"), func(o Options) bool { return o.LinkRemap && o.GhostLimit > 1<<20 }),
		"flock": with(at("file-locks", "", func() (int, error) {
			fd, err := unix.Open("/tmp/lock", unix.O_CREAT|unix.O_RDWR, 0o600)
			if err == nil {
				err = unix.Flock(fd, unix.LOCK_EX)
			}
			return fd, err
		}), func(o Options) bool { return o.FileLocks }),
		"POSIX lock": at("file-locks", "", func() (int, error) { return fileLock(unix.F_SETLK) }),
		"OFD lock":   at("file-locks", "", func() (int, error) { return fileLock(unix.F_OFD_SETLK) }),
		"lease": at("file-locks", "", func() (int, error) {
			fd, err := unix.Open("/tmp/lease", unix.O_CREAT|unix.O_RDONLY, 0o600)
			if err == nil {
				_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
			}
			return fd, err
		}),
		"lock of a dead process": {kind: "file-locks", take: func(string) (held, error) {
			fd, err := unix.Open("/tmp/lock", unix.O_CREAT|unix.O_RDWR, 0o600)
			if err != nil {
				return held{}, err
			}
			// flock(1) takes it for the open file, which stays ours.
			c := exec.Command("flock", "3")
			c.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "lock")}
			return held{FD: fd}, c.Run()
		}},
		"epoll of a file that others have": {kind: "epoll", mark: blocks, take: func(string) (held, error) {
			ep, fd, err := polled()
			if err != nil {
				return held{}, err
			}
			if _, err := spawn("wait", func(c *exec.Cmd) { c.ExtraFiles = append(c.ExtraFiles, os.NewFile(uintptr(fd), "pipe")) }); err != nil {
				return held{}, err
			}
			_ = unix.Close(fd)
			return held{FD: ep}, nil
		}},
	}
}

func secretMemory() (int, error) {
	const memfdSecret = 447 // on every architecture; not all of them have it
	fd, err := call(memfdSecret, 0)()
	if err == nil {
		err = unix.Ftruncate(fd, 4096)
	}
	return fd, err
}

func fileLock(command int) (int, error) {
	fd, err := unix.Open("/tmp/lock", unix.O_CREAT|unix.O_RDWR, 0o600)
	if err == nil {
		err = unix.FcntlFlock(uintptr(fd), command, &unix.Flock_t{Type: unix.F_WRLCK})
	}
	return fd, err
}

// largeHostFile is one of more than 1 MiB that every system has.
func largeHostFile() (string, error) {
	for _, path := range []string{"/usr/bin/perl", "/bin/bash", "/usr/bin/gdb", "/usr/bin/git"} {
		if st, err := os.Stat(path); err == nil && st.Size() > 1<<20 {
			return path, nil
		}
	}
	return "", os.ErrNotExist
}

func bpfProgram() (int, error) {
	code := [2]uint64{0xb7, 0x95} // r0 = 0; exit
	license := []byte("GPL\x00")
	attr := struct {
		kind, count   uint32
		code, license uintptr
		_             [12]uint64
	}{kind: 1 /* socket filter */, count: 2, code: uintptr(unsafe.Pointer(&code)), license: uintptr(unsafe.Pointer(&license[0]))}
	fd, err := call(unix.SYS_BPF, 5 /* BPF_PROG_LOAD */, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))()
	runtime.KeepAlive(code)
	return fd, err
}

func seccompListener() (int, error) {
	allow := unix.SockFilter{Code: 0x06 /* return */, K: 0x7fff0000 /* SECCOMP_RET_ALLOW */}
	program := unix.SockFprog{Len: 1, Filter: &allow}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, err
	}
	return call(unix.SYS_SECCOMP, 1 /* filter */, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))()
}

func mountThings() map[string]thing {
	on := func(kind, mark, path string, take func(dir string) error) thing {
		return thing{kind: kind, mark: mark, take: func(string) (held, error) {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return held{}, err
			}
			return held{FD: -1, Path: path}, take(path)
		}}
	}
	tmpfs := func(dir string) error { return unix.Mount("x", dir, "tmpfs", 0, "") }
	overlay := on("overlay", blocks, "/run/m", func(dir string) error {
		for _, d := range []string{"/run/l", "/run/u", "/run/w"} {
			if err := os.Mkdir(d, 0o755); err != nil {
				return err
			}
		}
		return unix.Mount("overlay", dir, "overlay", 0, "lowerdir=/run/l,upperdir=/run/u,workdir=/run/w")
	})
	overlay.notDumped = true // it dumps, but does not restore
	return map[string]thing{
		"overlay":                   overlay,
		"ramfs":                     on("mount-fs", blocks, "/mnt/x", func(dir string) error { return unix.Mount("x", dir, "ramfs", 0, "") }),
		"tmpfs":                     on("", "", "/mnt/x", tmpfs),
		"bind":                      on("", "", "/mnt/x", func(dir string) error { return unix.Mount("/etc", dir, "", unix.MS_BIND, "") }),
		"bind of an external mount": on("", "", "/mnt/x", func(dir string) error { return unix.Mount("/tmp", dir, "", unix.MS_BIND, "") }),
		"bound namespace": {kind: "mount-root", mark: blocks, take: func(string) (held, error) {
			if err := os.WriteFile("/run/ns", nil, 0o600); err != nil {
				return held{}, err
			}
			return held{FD: -1, Path: "/run/ns"}, unix.Mount("/proc/self/ns/net", "/run/ns", "", unix.MS_BIND, "")
		}},
		"file below a mount": at("file-overmounted", blocks, func() (int, error) {
			fd, err := unix.Open("/tmp/file", unix.O_CREAT|unix.O_RDWR, 0o600)
			if err == nil {
				err = tmpfs("/tmp")
			}
			return fd, err
		}),
		"file of a mount that is gone": at("file-outside", blocks, func() (int, error) {
			if err := tmpfs("/mnt"); err != nil {
				return -1, err
			}
			fd, err := unix.Open("/mnt/file", unix.O_CREAT|unix.O_RDWR, 0o600)
			if err == nil {
				err = unix.Unmount("/mnt", unix.MNT_DETACH)
			}
			return fd, err
		}),
		"current directory of a mount that is gone": {kind: "file-outside", mark: blocks, take: func(string) (held, error) {
			if err := tmpfs("/mnt"); err != nil {
				return held{}, err
			}
			if err := os.Chdir("/mnt"); err != nil {
				return held{}, err
			}
			return held{FD: -1, Path: "/"}, unix.Unmount("/mnt", unix.MNT_DETACH)
		}},
	}
}
