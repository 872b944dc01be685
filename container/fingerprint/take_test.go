package fingerprint

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

const helperVariable = "FINGERPRINT_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) != "" {
		helper()
		return
	}
	os.Exit(m.Run())
}

// The helper's descriptors.
const (
	timerAt    = 40
	datagramAt = 41
	fileAt     = 42
)

// helper is a program that loses what it is told to lose, the way CRIU does.
func helper() {
	timer := newTimer(1)
	check(unix.Dup3(timer, timerAt, 0))
	fds := []unix.PollFd{{Fd: timerAt, Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, -1); err != nil { // until it has expired, unread
		check(err)
	}
	s, err := net.ListenPacket("udp4", "127.0.0.1:0")
	check(err)
	raw, err := s.(*net.UDPConn).SyscallConn()
	check(err)
	check(raw.Control(func(fd uintptr) { check(unix.Dup3(int(fd), datagramAt, 0)) }))
	_, err = s.WriteTo([]byte("hello"), s.LocalAddr())
	check(err)
	f, err := os.CreateTemp("", "")
	check(err)
	check(os.Remove(f.Name()))
	check(unix.Dup3(int(f.Fd()), fileAt, 0))
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("done") {
		switch in.Text() {
		case "timer":
			// criu/timerfd.c before 4.3: no time left, so not armed, and the ticks.
			fresh := newTimer(0)
			ticks := uint64(1)
			const setTicks = 0x40085400 // TFD_IOC_SET_TICKS
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fresh), setTicks, uintptr(unsafe.Pointer(&ticks))); errno != 0 {
				check(errno)
			}
			check(unix.Dup3(fresh, timerAt, 0))
		case "datagram":
			_, _, err := s.ReadFrom(make([]byte, 16))
			check(err)
		case "affinity":
			var one unix.CPUSet
			one.Set(0)
			check(unix.SchedSetaffinity(os.Getpid(), &one))
		case "position":
			_, err := unix.Seek(fileAt, 7, io.SeekStart)
			check(err)
		case "option":
			check(unix.SetsockoptInt(datagramAt, unix.SOL_SOCKET, unix.SO_BROADCAST, 0))
		}
	}
}

// newTimer makes a timer with an interval, armed or not.
func newTimer(value int64) int {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, 0)
	check(err)
	check(unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: unix.NsecToTimespec(int64(time.Hour)), Value: unix.NsecToTimespec(value)}, nil))
	return fd
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// subject is a helper that can be told to do something.
type subject struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func newSubject(t *testing.T) *subject {
	t.Helper()
	s := &subject{t: t, cmd: exec.Command("/proc/self/exe")}
	s.cmd.Env = append(os.Environ(), helperVariable+"=1")
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait() })
	s.in, s.out = in, bufio.NewScanner(out)
	s.hear("ready")
	return s
}

func (s *subject) hear(want string) {
	s.t.Helper()
	if !s.out.Scan() || s.out.Text() != want {
		s.t.Fatalf("the helper says %q, want %q", s.out.Text(), want)
	}
}

func (s *subject) do(what string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, what); err != nil {
		s.t.Fatal(err)
	}
	s.hear("done")
}

// take stops the helper, as a freeze would.
func (s *subject) take(restored bool) *Fingerprint {
	s.t.Helper()
	pid := s.cmd.Process.Pid
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	var st unix.WaitStatus
	if _, err := unix.Wait4(pid, &st, unix.WUNTRACED, nil); err != nil || !st.Stopped() {
		s.t.Fatalf("stop the helper: %v, %v", st, err)
	}
	f, err := Take(context.Background(), Subject{Init: pid, Restored: restored})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
	return f
}

// TestLosses: each silent loss is found, and nothing of the kind where nothing
// was lost.
func TestLosses(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct {
		loss string
		want []string // ends of keys
	}{
		{"timer", []string{fmt.Sprintf("/fd/%d/goes-on", timerAt)}},
		{"datagram", []string{":%d/receive-queue", ":%d/pending"}},
		{"affinity", []string{"/status/Cpus_allowed_list"}},
		{"position", []string{fmt.Sprintf("/fd/%d/pos", fileAt)}},
		{"option", []string{"/option/broadcast"}},
	} {
		t.Run(c.loss, func(t *testing.T) {
			s := newSubject(t)
			before := s.take(false)
			compare := func() *Report {
				r, err := Compare(before, s.take(true), Circumstances{Elapsed: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			found := func(r *Report, end string) bool {
				if strings.Contains(end, "%d") { // of a socket, which has the number of its first descriptor
					end = end[strings.LastIndex(end, "/"):]
				}
				return slices.ContainsFunc(r.Differences, func(d Difference) bool { return strings.HasSuffix(d.Key, end) })
			}
			if r := compare(); slices.ContainsFunc(c.want, func(end string) bool { return found(r, end) }) {
				t.Fatalf("nothing is lost yet, and found was %v", r.Differences)
			}
			s.do(c.loss)
			r := compare()
			for _, end := range c.want {
				if !found(r, end) {
					t.Errorf("%s is not among the differences: %v", end, r.Differences)
				}
			}
		})
	}
}

// TestTakeItself: what this very process shows. Nothing may be unreadable that
// a process may read of itself.
func TestTakeItself(t *testing.T) {
	f, err := Take(context.Background(), Subject{Init: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"exe", "status/Umask", "limits/open-files", "fd/0", "cmdline", "auxv/6"} {
		key = fmt.Sprintf("process/%d/%s", os.Getpid(), key)
		i, ok := slices.BinarySearchFunc(f.Facts, key, func(f Fact, key string) int { return strings.Compare(f.Key, key) })
		if !ok || strings.HasPrefix(f.Facts[i].Value, Unreadable) {
			t.Errorf("no fact %s", key)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Take(ctx, Subject{Init: os.Getpid()}); err == nil {
		t.Error("a cancelled context is no error")
	}
	if _, err := Take(context.Background(), Subject{Init: 1 << 30}); err == nil {
		t.Error("no process is no error")
	}
}
