package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	mode := func() unix.Termios {
		t.Helper()
		v, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return *v
	}
	before := mode()
	var stderr strings.Builder
	cmd := exec.Command(bin, "attach", name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, &stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); mode().Lflag&unix.ICANON != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the terminal does not become raw")
		}
	}
	// A key that is half of the sequence only is the program's.
	if _, err := master.WriteString("\x10x\x10\x11"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || stderr.String() != "detached\n" {
		t.Errorf("attach: %v, says %q", err, stderr.String())
	}
	if mode() != before {
		t.Errorf("the terminal is left in another mode: %+v, was %+v", mode(), before)
	}
	out, err := exec.Command(bin, "list").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "running") {
		t.Errorf("%v: %s", err, out)
	}
}
