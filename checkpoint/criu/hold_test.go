package criu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// holds are things that a process can have and that stand in CRIU's way.
func holds() map[string]func() error {
	return map[string]func() error{
		"detached-mount": holdDetachedMount,
		"tcp":            func() error { return holdTCP(true) },
		"tcp-in-flight":  func() error { return holdTCP(false) },
		"listener":       holdListener,
		"mptcp":          func() error { return holdSocket(unix.AF_INET, unix.SOCK_STREAM, 262, true) },
		"vsock":          func() error { return holdSocket(unix.AF_VSOCK, unix.SOCK_STREAM, 0, false) },
		"corked":         holdCorked,
		"io-uring":       func() error { return holdIOUring() },
		"secret":         holdSecret,
		"uffd":           func() error { return holdCall(unix.SYS_USERFAULTFD, 0) },
		"perf":           holdPerf,
		"mqueue":         holdMqueue,
		"ghost":          func() error { return holdDeleted(2<<20, false) },
		"link":           func() error { return holdDeleted(10, true) },
		"flock":          holdFlock,
		"inherited":      func() error { return nil }, // descriptor 4 is the caller's
		"child":          holdChild,
		"traced":         holdTraced,
		"shm":            holdShm,
		"other-user":     holdOtherUser,
		"reopened":       reopen,
		"uts":            func() error { return holdCloned(unix.CLONE_NEWUTS) },
		"unix-listener":  holdUnixListener,
		"file":           func() error { return keep(os.OpenFile("file", os.O_RDWR|os.O_CREATE, 0o644)) },
	}
}

// kept keeps what a workload holds from the garbage collector.
var kept []any

func keep(x any, err error) error {
	kept = append(kept, x)
	return err
}

func holdCall(nr, a uintptr) error {
	if _, _, e := unix.Syscall(nr, a, 0, 0); e != 0 {
		return e
	}
	return nil
}

// holdDetachedMount has a file open on a mount that is in no namespace: what
// a descriptor from outside of a container looks like.
func holdDetachedMount() error {
	fs, err := unix.Fsopen("tmpfs", 0)
	if err != nil {
		return err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	mnt, err := unix.Fsmount(fs, 0, 0)
	if err != nil {
		return err
	}
	unix.Close(fs)
	fd, err := unix.Openat(mnt, "file", unix.O_CREAT|unix.O_RDWR, 0o600)
	unix.Close(mnt)
	return keep(fd, err)
}

func listenOn(addr [4]byte, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr, Port: port}); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, 4)
}

// holdListener writes the port that it listens at into the file "port".
func holdListener() error {
	fd, err := listenOn([4]byte{127, 0, 0, 1}, 0)
	if err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	return os.WriteFile("port", []byte(strconv.Itoa(name.(*unix.SockaddrInet4).Port)), 0o600)
}

func holdUnixListener() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"}); err != nil {
		return err
	}
	return unix.Listen(fd, 1)
}

func holdTCP(accept bool) error {
	fd, err := listenOn([4]byte{127, 0, 0, 1}, 0)
	if err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(client, name); err != nil {
		return err
	}
	if accept {
		_, _, err = unix.Accept(fd)
	}
	return err
}

func holdSocket(family, kind, proto int, listen bool) error {
	fd, err := unix.Socket(family, kind, proto)
	if err != nil || !listen {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	return unix.Listen(fd, 1)
}

func holdCorked() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_CORK, 1); err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("half"))
	return err
}

func holdIOUring() error {
	var params [120]byte // struct io_uring_params
	if _, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0); e != 0 {
		return e
	}
	return nil
}

func holdSecret() error {
	const memfdSecret = 447 // on each of our architectures; x/sys/unix has none for arm
	fd, _, e := unix.Syscall(memfdSecret, 0, 0, 0)
	if e != 0 {
		return e
	}
	if err := unix.Ftruncate(int(fd), 4096); err != nil {
		return err
	}
	return keep(unix.Mmap(int(fd), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
}

func holdPerf() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}
	attr.Size = uint32(unsafe.Sizeof(attr))
	return keep(unix.PerfEventOpen(&attr, 0, -1, -1, 0))
}

func holdMqueue() error {
	name := []byte(fmt.Sprintf("crucible-test-%d\x00", os.Getpid()))
	_, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0)
	_, _, _ = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(&name[0])), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func holdDeleted(size int, linked bool) error {
	f, err := os.Create("deleted")
	if err != nil {
		return err
	}
	if _, err := f.Write(make([]byte, size)); err != nil {
		return err
	}
	if linked {
		if err := os.Link("deleted", "other"); err != nil {
			return err
		}
	}
	return keep(f, os.Remove("deleted"))
}

func holdFlock() error {
	f, err := os.Create("locked")
	if err != nil {
		return err
	}
	return keep(f, unix.Flock(int(f.Fd()), unix.LOCK_EX))
}

func startChild(attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command(self)
	cmd.Env = []string{workEnv + "=idle"}
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.Close()
	_, _ = r.Read(make([]byte, 1))
	return cmd, nil
}

func holdChild() error { return keep(startChild(nil)) }

func holdCloned(flags uintptr) error {
	return keep(startChild(&syscall.SysProcAttr{Cloneflags: flags}))
}

func holdTraced() error {
	runtime.LockOSThread() // the tracer is a thread
	cmd, err := startChild(nil)
	if err != nil {
		return err
	}
	return keep(nil, unix.PtraceSeize(cmd.Process.Pid))
}

func holdShm() error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
	if err != nil {
		return err
	}
	defer func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) }()
	return keep(unix.SysvShmAttach(id, 0, 0))
}

func holdOtherUser() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:\t")
	if len(rest) < 16 || strings.ContainsRune("13579bdf", rune(rest[9])) { // bit 24
		return errors.New("this machine has CAP_SYS_RESOURCE")
	}
	if err := syscall.Setgid(65534); err != nil {
		return err
	}
	return syscall.Setuid(65534)
}

// reopen opens the standard streams anew, inside of what namespaces it has.
func reopen() error {
	f, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup2(int(f.Fd()), fd); err != nil {
			return err
		}
	}
	return f.Close()
}
