package builtin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/experiments/plan"
)

func TestMain(m *testing.M) {
	MaybeRun()
	os.Exit(m.Run())
}

// start starts the program without a container.
func start(t *testing.T, b plan.Builtin) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = Args(b)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL); _ = cmd.Wait() })
	return cmd, bufio.NewReader(out)
}

func says(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil || line != want+"\n" {
		t.Fatalf("%q, %v; want %q", line, err, want)
	}
}

// The program holds what it is told to, and finds all of it as it was.
func TestHold(t *testing.T) {
	b := plan.Builtin{Processes: 3, Threads: 3, Descriptors: 20, Mappings: 30, Memory: 3 << 20, Dirty: 1 << 20, Timers: 2, Files: 2, Port: freePort(t)}
	cmd, out := start(t, b)
	says(t, out, Ready)
	time.Sleep(3 * beat) // something is dirtied
	for range 2 {
		if err := cmd.Process.Signal(Check); err != nil {
			t.Fatal(err)
		}
		says(t, out, Checked)
	}
	for pattern, least := range map[string]int{"anon_inode:[eventfd]": 20, "anon_inode:[timerfd]": 2, "held-": 2} {
		if n := descriptors(t, cmd.Process.Pid, pattern); n < least {
			t.Errorf("%d descriptors of %s", n, pattern)
		}
	}
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", b.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ball := make([]byte, 4)
	_, err = conn.Write([]byte("ping"))
	if err == nil {
		_, err = io.ReadFull(conn, ball)
	}
	if err != nil || string(ball) != "ping" {
		t.Errorf("%q, %v", ball, err)
	}
}

func descriptors(t *testing.T, pid int, pattern string) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(dir + fd.Name()); err == nil && strings.Contains(to, pattern) {
			n++
		}
	}
	return n
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// What is not as it was is found, whatever it is.
func TestDiffers(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	b := plan.Builtin{Threads: 1, Descriptors: 2, Mappings: 2, Memory: 1 << 20, Timers: 1, Files: 1}
	for name, spoil := range map[string]func(h *holdings) error{
		"thread":  func(h *holdings) error { h.threads[0] = 1 << 21; return nil },
		"eventfd": func(h *holdings) error { _, err := unix.Read(h.events[1], make([]byte, 8)); return err },
		"mapping": func(h *holdings) error { h.mappings[0][0]++; return nil },
		"memory":  func(h *holdings) error { h.memory.bytes[4096+17]++; return nil },
		"timer":   func(h *holdings) error { return unix.TimerfdSettime(h.timers[0], 0, &unix.ItimerSpec{}, nil) },
		"file":    func(h *holdings) error { _, err := h.files[0].Seek(1, 0); return err },
	} {
		h, err := hold(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.check(); err != nil {
			t.Fatal(err)
		}
		if err := spoil(h); err != nil {
			t.Fatal(err)
		}
		if err := h.check(); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		_ = unix.Munmap(h.memory.bytes)
	}
}
