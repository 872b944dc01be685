package criu

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// moreHolds are what else a workload can hold.
func moreHolds() map[string]func() error {
	return map[string]func() error{
		"seccomp-notify": holdSeccompListener,
		"bpf":            holdBPF,
		"landlock":       holdLandlock,
		"device":         func() error { return keep(os.OpenFile("/dev/loop-control", os.O_RDWR, 0)) },
		"xdp":            func() error { return holdSocket(unix.AF_XDP, unix.SOCK_RAW, 0, false) },
		"in-flight-data": holdInFlightData,
		"netlink-data":   holdNetlinkData,
		"inotify-proc":   func() error { return holdInotify("/proc/self") },
		"inotify":        func() error { return errorsFirst(os.Mkdir("watched", 0o700), holdInotify("watched")) },
		"sigtrap":        holdSIGTRAP,
		"chroot":         func() error { return unix.Chroot("/tmp") },
		"ramfs":          func() error { return unix.Mount("none", "/tmp", "ramfs", 0, "") },
		"tmpfs":          holdTmpfs,
		"overlay":        holdOverlay,
		"overmounted":    holdOvermounted,
		"bound-over":     holdBoundOver,
		"link-unknown":   func() error { return addLink("probe0", "ifb") },
		"bind-device":    holdBindDevice,
	}
}

func errorsFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// allow is a filter that lets everything through.
func allow() *unix.SockFprog {
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}}
	return &unix.SockFprog{Len: 1, Filter: &filter[0]}
}

func holdSeccompListener() error {
	const seccompSetFilter = 1 // SECCOMP_SET_MODE_FILTER
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, seccompSetFilter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(allow()))); e != 0 {
		return e
	}
	return nil
}

func holdBPF() error {
	code := [2]uint64{0x00000000000000b7, 0x0000000000000095} // r0 = 0; exit
	license := []byte("GPL\x00")
	attr := struct {
		kind, count    uint32
		code, license  uint64
		level, size    uint32
		buffer         uint64
		version, flags uint32
	}{kind: 1, count: 2, code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	_, _, e := unix.Syscall(unix.SYS_BPF, 5, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&code)
	runtime.KeepAlive(license)
	if e != 0 {
		return e
	}
	return nil
}

func holdLandlock() error {
	handled := uint64(1) // LANDLOCK_ACCESS_FS_EXECUTE
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), 8, 0); e != 0 {
		return e
	}
	return nil
}

func holdInFlightData() error {
	if err := holdUnixListener(); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: "socket"}); err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("data"))
	return err
}

func holdNetlinkData() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	request := make([]byte, 20)
	*(*uint32)(unsafe.Pointer(&request[0])) = 20
	*(*uint16)(unsafe.Pointer(&request[4])) = unix.RTM_GETLINK
	*(*uint16)(unsafe.Pointer(&request[6])) = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	return unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func holdInotify(path string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_CREATE)
	return err
}

// holdSIGTRAP has one pending in its first thread.
func holdSIGTRAP() error {
	runtime.LockOSThread()
	set := uint64(1) << (unix.SIGTRAP - 1)
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0); e != 0 {
		return e
	}
	return unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGTRAP)
}

func holdTmpfs() error {
	if err := os.Mkdir("/tmp/t", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/tmp/t", "tmpfs", 0, ""); err != nil {
		return err
	}
	random, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer random.Close()
	data := make([]byte, 1<<20)
	if _, err := random.Read(data); err != nil {
		return err
	}
	return os.WriteFile("/tmp/t/content", data, 0o600)
}

func holdOverlay() error {
	for _, dir := range []string{"lower", "upper", "w", "merged"} {
		if err := os.MkdirAll("/tmp/"+dir, 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("overlay", "/tmp/merged", "overlay", 0, "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/w")
}

// holdOvermounted has a file open on a mount that another one covers.
func holdOvermounted() error {
	if err := unix.Mount("tmpfs", "/work", "tmpfs", 0, ""); err != nil {
		return err
	}
	f, err := os.Create("/work/file")
	if err != nil {
		return err
	}
	kept = append(kept, f)
	return unix.Mount("tmpfs", "/work", "tmpfs", 0, "")
}

// holdBoundOver has a file open whose path leads to another one meanwhile.
func holdBoundOver() error {
	f, err := os.Create("/tmp/file")
	if err != nil {
		return err
	}
	kept = append(kept, f)
	if err := os.WriteFile("/tmp/other", nil, 0o600); err != nil {
		return err
	}
	return unix.Mount("/tmp/other", "/tmp/file", "", unix.MS_BIND, "")
}

// addLink is `ip link add NAME type KIND`.
func addLink(name, kind string) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attribute := func(kind uint16, data []byte) []byte {
		out := make([]byte, 4, 4+len(data)+3)
		*(*uint16)(unsafe.Pointer(&out[0])) = uint16(4 + len(data))
		*(*uint16)(unsafe.Pointer(&out[2])) = kind
		out = append(out, data...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
		return out
	}
	request := make([]byte, 32)
	*(*uint16)(unsafe.Pointer(&request[4])) = unix.RTM_NEWLINK
	*(*uint16)(unsafe.Pointer(&request[6])) = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL
	*(*uint32)(unsafe.Pointer(&request[24])) = unix.IFF_UP
	*(*uint32)(unsafe.Pointer(&request[28])) = unix.IFF_UP
	request = append(request, attribute(unix.IFLA_IFNAME, append([]byte(name), 0))...)
	request = append(request, attribute(unix.IFLA_LINKINFO, attribute(unix.IFLA_INFO_KIND, []byte(kind)))...)
	*(*uint32)(unsafe.Pointer(&request[0])) = uint32(len(request))
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < 20 {
		return err
	}
	if e := *(*int32)(unsafe.Pointer(&answer[16])); e != 0 {
		return syscall.Errno(-e)
	}
	return nil
}

// holdBindDevice has a socket that is bound to an interface.
func holdBindDevice() error {
	if err := addLink("probe0", "ifb"); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	return errorsFirst(unix.BindToDevice(fd, "probe0"), unix.Bind(fd, &unix.SockaddrInet4{Port: 7}))
}

// vforkWork waits for a child that neither executes nor ends.
func vforkWork(string) (func(), error) {
	return func() {
		runtime.LockOSThread()
		pid, _, _ := unix.RawSyscall(unix.SYS_CLONE, unix.CLONE_VFORK|unix.CLONE_VM|uintptr(unix.SIGCHLD), 0, 0)
		for pid == 0 {
			unix.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
		}
	}, nil
}

// programWork becomes another program, a copy of sleep(1) in its own directory.
func programWork(string) (func(), error) {
	data, err := os.ReadFile("/bin/sleep")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile("program", data, 0o700); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(3, unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, err
	}
	return nil, syscall.Exec("program", []string{"program", "1000"}, nil)
}
