package fork

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const helperEnv = "CRUCIBLE_FORK_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "":
		os.Exit(m.Run())
	case "target":
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "report":
		if err := json.NewEncoder(os.Stdout).Encode(report()); err != nil {
			os.Exit(3)
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(42)
	}
	os.Exit(0)
}

// seen is what a program finds out about itself.
type seen struct {
	Pid, UID, GID int
	Groups        []int
	Args, Env     []string
	Soft          uint64
	Effective     string
	Blocked       string
	Descriptors   []int
}

func report() seen {
	s := seen{Pid: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Args: os.Args, Env: os.Environ()}
	s.Groups, _ = os.Getgroups()
	for fd := range 64 {
		// What Go itself opened since is close-on-exec.
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			s.Descriptors = append(s.Descriptors, fd)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_ = unix.Capget(&header, &data[0])
	s.Effective = fmt.Sprintf("%08x%08x", data[1].Effective, data[0].Effective)
	var mask unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask)
	s.Blocked = fmt.Sprint(mask.Val[0])
	return s
}

const everything = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// target is a sleeping process in namespaces of its own.
func target(t testing.TB, flags uintptr) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=target")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags &^ unix.CLONE_NEWTIME, Unshareflags: flags & unix.CLONE_NEWTIME}
	if flags&unix.CLONE_NEWUSER != 0 {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1000}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("target said %q, %v", line, err)
	}
	return cmd.Process.Pid
}

func self(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// program is a started child and our ends of its input and output.
type program struct {
	pid     int
	in, out *os.File
}

func start(t testing.TB, o Options) (*program, error) {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o.Files = []*os.File{inR, outW, os.Stderr}
	pid, err := Into(t.Context(), o)
	inR.Close()
	outW.Close()
	if err != nil {
		inW.Close()
		outR.Close()
		return nil, err
	}
	return &program{pid, inW, outR}, nil
}

func (p *program) end(t testing.TB) *os.ProcessState {
	t.Helper()
	p.in.Close()
	p.out.Close()
	process, err := os.FindProcess(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	state, err := process.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func (p *program) report(t testing.TB) seen {
	t.Helper()
	var s seen
	if err := json.NewDecoder(p.out).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func namespace(t testing.TB, pid int, name string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return link
}
