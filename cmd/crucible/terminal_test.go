package main

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container"
	"crucible/container/testenv"
)

// openTerminal returns both ends of a new terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	check(err)
	t.Cleanup(func() { master.Close() })
	check(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	check(err)
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	check(err)
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// onTerminal starts a command with that terminal as its controlling one.
func onTerminal(t *testing.T, slave *os.File, stderr io.Writer, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

func terminalMode(t *testing.T, slave *os.File) unix.Termios {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *mode
}

func awaitRaw(t *testing.T, slave *os.File) {
	t.Helper()
	for end := time.Now().Add(patience); terminalMode(t, slave).Lflag&unix.ICANON != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the terminal does not become raw")
		}
	}
}

// The keys that leave a container running are those of podman and docker, and
// the terminal is afterwards as it was before.
func TestDetachKeys(t *testing.T) {
	testenv.Root(t)
	root := testenv.StateRoot(t)
	testenv.LeakCheck(t)
	t.Cleanup(func() { deleteAll(t, root) })
	name, bin := testenv.Name(t), testenv.Binary(t)
	if out, err := exec.Command(bin, "run", "-d", "-t", "-i", "--name", name, "--", "cat").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	master, slave := openTerminal(t)
	before := terminalMode(t, slave)
	var stderr strings.Builder
	cmd := onTerminal(t, slave, &stderr, bin, "attach", name)
	awaitRaw(t, slave)
	// A key that is half of the sequence only is the program's.
	if _, err := master.WriteString("\x10x\x10\x11"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || stderr.String() != "detached\n" {
		t.Errorf("attach: %v, says %q", err, stderr.String())
	}
	if after := terminalMode(t, slave); after != before {
		t.Errorf("the terminal is left in another mode: %+v, was %+v", after, before)
	}
	out, err := exec.Command(bin, "list").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "running") {
		t.Errorf("%v: %s", err, out)
	}
}

// Without -i no key is the program's, and Ctrl-C means what it means elsewhere.
func TestKeysWithoutInput(t *testing.T) {
	s := newStage(t)
	s.do("run", "-d", "--name", s.name+"x", "--", "sleep", "1000")
	for box, args := range map[string][]string{
		s.name:       {"run", "--rm", "-t", "--name", s.name, "--", "sleep", "2000"},
		s.name + "x": {"exec", "-t", s.name + "x", "--", "sleep", "2000"},
	} {
		master, slave := openTerminal(t)
		before := terminalMode(t, slave)
		var stderr strings.Builder
		cmd := onTerminal(t, slave, &stderr, append([]string{s.bin}, args...)...)
		s.until("the program runs", func() bool {
			out, err := s.command("ps", box)
			return err == nil && strings.Contains(out, "sleep 2000")
		})
		if _, err := master.WriteString("\x03"); err != nil {
			t.Fatal(err)
		}
		alarm := time.AfterFunc(patience/4, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		if !alarm.Stop() {
			t.Errorf("%s -t: Ctrl-C does not end it", args[0])
		}
		if after := terminalMode(t, slave); after != before {
			t.Errorf("%s -t: the terminal is left in another mode", args[0])
		}
	}
	s.do("delete", "-f", s.name+"x")
}

// Whatever ends attach, the terminal is as it was before, and the container
// goes on.
func TestAttachIsInterrupted(t *testing.T) {
	s := newStage(t)
	s.do("run", "-d", "-t", "-i", "--name", s.name, "--", "cat")
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT} {
		_, slave := openTerminal(t)
		before := terminalMode(t, slave)
		var stderr strings.Builder
		cmd := onTerminal(t, slave, &stderr, s.bin, "attach", s.name)
		awaitRaw(t, slave)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if after := terminalMode(t, slave); after != before {
			t.Errorf("after %v the terminal is left in another mode", sig)
		}
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("after %v the exit code is %d: %s", sig, code, stderr.String())
		}
	}
	if got := s.status(s.name); got != container.Running {
		t.Errorf("the container is %s", got)
	}
	s.do("delete", "-f", s.name)
}

// Keys come one by one from a person: the first of the two is held back until
// the next one tells what it is.
func TestDetachReader(t *testing.T) {
	for _, test := range []struct {
		keys   []string
		passed string
		detach bool
	}{
		{[]string{"a\x10", "\x11", "b"}, "a", true},
		{[]string{"\x10\x10", "\x11"}, "\x10", true},
		{[]string{"\x10", "x", "\x11"}, "\x10x\x11", false},
		{[]string{"x\x10"}, "x\x10", false},
		{[]string{"\x10\x11"}, "", true},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		keys := &detachReader{in: r, detach: make(chan struct{})}
		var passed []byte
		buf := make([]byte, 16)
		read := func() error {
			n, err := keys.Read(buf)
			passed = append(passed, buf[:n]...)
			return err
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for read() == nil {
			}
		}()
		for _, k := range test.keys {
			if _, err := w.WriteString(k); err != nil {
				t.Fatal(err)
			}
			for left := 1; left > 0; time.Sleep(time.Millisecond) { // each is read by itself
				if left, err = unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ); err != nil || isClosed(keys.detach) {
					break
				}
			}
		}
		w.Close()
		<-done
		if string(passed) != test.passed || isClosed(keys.detach) != test.detach {
			t.Errorf("%q: passes %q on, detached: %v", test.keys, passed, isClosed(keys.detach))
		}
		r.Close()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
