package cgroup_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/testenv"
)

// TestMain makes the test binary also what runs inside of the groups.
func TestMain(m *testing.M) {
	if job := os.Getenv("CGROUP_TEST_JOB"); job != "" {
		runtime.LockOSThread()
		fmt.Println("ready:", runJob(job))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// runJob does not return unless it fails.
func runJob(job string) error {
	switch job {
	case "sleep":
		fmt.Println("ready")
		for {
			_ = unix.Pause()
		}
	case "fork": // processes come and go as fast as they can
		fmt.Println("ready")
		for {
			pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if errno == 0 && pid == 0 {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			_, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		}
	case "bomb": // and all of the children do the same
		fmt.Println("ready")
		for {
			syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		}
	case "vfork":
		fmt.Println("ready")
		// The child has a copy of the memory, and the parent waits all the same.
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD|unix.CLONE_VFORK), 0, 0, 0, 0, 0)
		for errno == 0 && pid == 0 {
			syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
		return errno
	case "hang": // in state D: a file system whose server never answers
		return hang()
	case "open": // each device it is told of
		fmt.Println("ready")
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			f, err := os.Open(in.Text())
			f.Close()
			fmt.Println(err == nil)
		}
	case "spin":
		fmt.Println("ready")
		for {
			_ = make([]byte, 1<<20)
		}
	}
	return fmt.Errorf("no job %q", job)
}

// hang makes a system call that waits for the server of a file system. It is
// the server itself, and does not answer: as somebody who asks to be frozen it
// goes on waiting in state D (fs/fuse/dev.c, request_wait_answer).
func hang() error {
	dir, err := os.MkdirTemp("", "cgroup-test")
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := unix.Mount("none", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		return err
	}
	go func() {
		request := make([]byte, 1<<17)
		if _, err := unix.Read(fd, request); err != nil {
			fmt.Println("ready:", err)
		}
		// struct fuse_out_header and fuse_init_out of include/uapi/linux/fuse.h:
		// length 80, no error, the request's number; version 7.31.
		reply := make([]byte, 80)
		binary.NativeEndian.PutUint32(reply, 80)
		copy(reply[8:16], request[8:16])
		binary.NativeEndian.PutUint32(reply[16:], 7)
		binary.NativeEndian.PutUint32(reply[20:], 31)
		binary.NativeEndian.PutUint32(reply[36:], 4096)
		if _, err := unix.Write(fd, reply); err != nil {
			fmt.Println("ready:", err)
		}
		// The look-up is not even read: once it were, SIGKILL would not end the
		// wait, nor therefore this process, which alone could answer.
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		fmt.Println("ready", dir, err)
	}()
	var st unix.Stat_t
	return unix.Stat(filepath.Join(dir, "x"), &st)
}

// hung starts such a job.
func hung(t *testing.T, g *cgroup.Group) *job {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		testenv.Skip(t, "needs FUSE for a task that cannot be frozen: %v", err)
	}
	j := start(t, g, "hang")
	words := strings.Fields(j.said)
	if len(words) != 3 || words[2] != "<nil>" {
		t.Fatalf("job says %q", j.said)
	}
	t.Cleanup(func() { _ = os.Remove(words[1]) })
	return j
}

// job is a process that does one of runJob's.
type job struct {
	*exec.Cmd
	said string
	out  *bufio.Reader
	in   *os.File
}

func command(t testing.TB, name string) *job {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CGROUP_TEST_JOB="+name, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &job{Cmd: cmd, out: bufio.NewReader(out), in: in.(*os.File)}
}

// start runs a job in the group from its first instruction on.
func start(t testing.TB, g *cgroup.Group, name string) *job {
	t.Helper()
	return startOn(t, g, name, true)
}

// startOn is start, on a kernel that knows CLONE_INTO_CGROUP or does not.
func startOn(t testing.TB, g *cgroup.Group, name string, clone3 bool) *job {
	t.Helper()
	j := command(t, name)
	err := g.Start(func(group *os.File) (int, error) {
		if group != nil && !clone3 {
			return 0, &os.PathError{Op: "fork/exec", Err: unix.ENOSYS}
		}
		if group != nil {
			j.SysProcAttr.UseCgroupFD, j.SysProcAttr.CgroupFD = true, int(group.Fd())
		}
		if err := j.Cmd.Start(); err != nil {
			return 0, err
		}
		return j.Process.Pid, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // runs before create's
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := g.Kill(ctx); err != nil {
			t.Error(err)
			return // to wait would take as long as the process lives
		}
		_ = j.Wait()
	})
	if j.said, err = j.out.ReadString('\n'); err != nil || strings.Contains(j.said, ":") {
		t.Fatalf("job %s says %q: %v", name, j.said, err)
	}
	return j
}
