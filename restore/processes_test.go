package restore_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// testPipeline: three processes with data in the pipes between them, one of
// which waits in the open of a named pipe.
func testPipeline(t *testing.T, e *env) {
	const lines = 20000
	b := e.run(nil, program(t, "bash"), "-c", fmt.Sprintf(
		`mkdir -p /srv; mkfifo /srv/gate; seq %d | while read n; do [ $n = 5000 ] && read go </srv/gate; echo $n; done | tee /srv/out | tail -n 1`, lines))
	stuck := func() error {
		data, err := os.ReadFile(b.path("/srv/out"))
		if got := bytes.Count(data, []byte("\n")); got != 4999 {
			return fmt.Errorf("%d lines: %w", got, err)
		}
		return nil
	}
	eventually(t, "the reader stops at the gate", stuck)

	b.cycle()

	if err := stuck(); err != nil {
		t.Fatal(err)
	}
	b.exec("sh", "-c", "echo go >/srv/gate")
	if got := strings.TrimSpace(b.do("wait", b.name)); got != "0" {
		t.Errorf("exit status %s", got)
	}
	if got := b.logs(); len(got) != 1 || got[0] != fmt.Sprint(lines) {
		t.Errorf("last line: %q", got)
	}
}

// testFamily: sessions, process groups, orphans, zombies, stopped processes,
// threads, signals that wait, and timers.
func testFamily(t *testing.T, e *env) {
	b := e.run(nil, python(t), "-c", script(t, "family.py"))
	type counts struct {
		Timer, Timerfd, Real                int
		Virtual, Alarm, Boottime, Monotonic int
	}
	var before, after any
	var was, is counts
	b.ask("tree", &before)
	eventually(t, "timers", func() error {
		b.ask("counts", &was)
		if was.Timer < 5 || was.Timerfd < 5 || was.Real < 5 || was.Alarm == 0 {
			return fmt.Errorf("%+v", was)
		}
		return nil
	})

	b.cycle()

	b.ask("tree", &after)
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("processes (-before +after):\n%s", d)
	}
	eventually(t, "timers", func() error {
		b.ask("counts", &is)
		if is.Timer < was.Timer+5 || is.Timerfd < was.Timerfd+5 || is.Real < was.Real+5 {
			return fmt.Errorf("%+v, before %+v", is, was)
		}
		return nil
	})
	// Seconds that are left: fewer, but not by more than the test took.
	for _, left := range []struct {
		what          string
		before, after int
	}{{"alarm", was.Alarm, is.Alarm}, {"virtual", was.Virtual, is.Virtual}, {"boottime", was.Boottime, is.Boottime}} {
		if left.after > left.before || left.after < left.before-60 {
			t.Errorf("%s: %d s are left, before %d s", left.what, left.after, left.before)
		}
	}
	var end map[string]int
	b.ask("finish", &end)
	if d := cmp.Diff(map[string]int{"exited": 7, "killed": -9, "waiting": 3, "stopped": 9}, end); d != "" {
		t.Errorf("how they ended (-want +got):\n%s", d)
	}
}

// testDescriptors: one of every kind of descriptor and of memory.
func testDescriptors(t *testing.T, e *env) {
	b := e.run(nil, python(t), "-c", script(t, "descriptors.py"))
	var before, after, taken map[string]any
	b.ask("peek", &before)

	b.cycle()

	b.ask("peek", &after)
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("(-before +after):\n%s", d)
	}
	b.ask("drain", &taken)
	want := map[string]any{
		"shared position": 6.0, "append": "first\nsecond\n", "polled": 1.0, "pipe": 100000.0, "fifo": "fifo", "stream": "stream",
		"packets": []any{"one", "two"}, "passed": "passed", "tcp": 50000.0, "answer": "answer", "eventfd": 5.0, "signalfd": 10.0,
		"message": "queued", "udp polled": 1.0, "udp": "datagram", "udp after": 0.0, "inotify": "new", "listener": "again", "written": "common",
		"timerfd": []any{true, true, true},
	}
	if d := cmp.Diff(want, taken); d != "" {
		t.Errorf("what was under way (-want +got):\n%s", d)
	}
}

// testTerminal: a program on a terminal keeps it, with its size and modes, and
// job control on it.
func testTerminal(t *testing.T, e *env) {
	b := e.run([]string{"-t", "-i"}, program(t, "bash"), "--norc", "--noprofile", "-i")
	before := b.attach()
	before.say("stty -echo\n")
	// Stopped as by Ctrl-Z; CRIU knows of no SIGTTIN, the stop of a cat that
	// wants to read in the background.
	before.say("word=kept; sleep 1001 & sleep 1000 & until jobs -s | grep -q .; do kill -TSTP %1; sleep 0.02; done; echo 'set'-up\n")
	before.hear("set-up")
	before.say("\x10\x11") // Ctrl-P Ctrl-Q
	if err := before.wait(); err != nil {
		t.Fatalf("leave: %v", err)
	}

	b.cycle()

	after := b.attach()
	after.say("stty size; echo $word-$(tty)-$(jobs -r | wc -l)-$(jobs -s | wc -l); stty -a | grep -o -e '-echo ' | head -n1\n")
	after.hear("33 111")
	after.hear("kept-/dev/pts/0-1-1")
	after.hear("-echo")
	after.say("kill -9 %1 %2; sh -c 'trap \"echo inter\"\"rupted; exit\" INT; echo pid $PPID waits; while :; do sleep 0.1; done'\n")
	after.hear("pid 1 waits")
	after.say("\x03") // by way of the restored line discipline
	after.hear("interrupted")
	after.hear("# ")
	after.say("exit 5\nexit 5\n") // twice: bash may have seen the jobs stopped last
	var f *failure
	if err := after.wait(); !errors.As(err, &f) || f.Code != 5 {
		t.Errorf("the attached command ended with %v, want exit status 5", err)
	}
}

// attached is a `crucible attach` on a terminal of its own.
type attached struct {
	t      testing.TB
	master *os.File
	output *bufio.Reader
	heard  strings.Builder
	wait   func() error
}

func (b *box) attach() *attached {
	b.t.Helper()
	master, slave, err := terminal()
	if err != nil {
		b.t.Fatal(err)
	}
	defer slave.Close()
	c := exec.CommandContext(b.t.Context(), b.bin, "--root", b.root, "attach", b.name)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	a := &attached{t: b.t, master: master, output: bufio.NewReader(master)}
	a.wait = func() error {
		_, _ = io.Copy(io.Discard, a.output) // until nobody has the terminal
		err := c.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return &failure{Code: exit.ExitCode()}
		}
		return err
	}
	// Whoever waits for a line that does not come is stopped by this.
	timer := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
	b.t.Cleanup(func() {
		timer.Stop()
		_ = c.Process.Kill()
		_ = c.Wait()
		master.Close()
	})
	return a
}

// terminal opens a pair of pts(4) of 33 lines and 111 columns.
func terminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 111}))
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

func (a *attached) say(text string) {
	a.t.Helper()
	if _, err := io.WriteString(a.master, text); err != nil {
		a.t.Fatal(err)
	}
}

// hear reads until the text has come.
func (a *attached) hear(want string) {
	a.t.Helper()
	a.heard.Reset()
	for !strings.Contains(a.heard.String(), want) {
		c, err := a.output.ReadByte()
		if err != nil {
			a.t.Fatalf("attach: %v, while waiting for %q, after %q", err, want, a.heard.String())
		}
		a.heard.WriteByte(c)
	}
}

// testUserNamespace: ids are mapped, for the processes and for what they write.
func testUserNamespace(t *testing.T, e *env) {
	const program = `
import socket
os.makedirs("/srv/crucible-test")
open("/srv/crucible-test/root", "w").close()
open("/srv/crucible-test/nobody", "w").close()
os.chown("/srv/crucible-test/nobody", 65534, 65534)
ready, done = os.pipe()
pid = os.fork()
if pid == 0:
    os.setgroups([7, 8]); os.setgid(33); os.setuid(33)
    os.close(ready); os.close(done)
    while True: signal.pause()
os.close(done)
os.read(ready, 1) # ends when the child is who it is to be
os.close(ready)
def look():
    with open(f"/proc/{pid}/status") as f:
        child = [l for l in f if l.startswith(("Uid", "Gid", "Groups", "Cap"))]
    with open("/proc/self/status") as f:
        self = [l for l in f if l.startswith(("Uid", "Gid", "Groups", "Cap"))]
    stats = [os.stat("/srv/crucible-test/" + f) for f in ("root", "nobody")]
    return {"map": open("/proc/self/uid_map").read().split(), "setgroups": open("/proc/self/setgroups").read(),
            "child": child, "self": self, "files": [(s.st_uid, s.st_gid) for s in stats]}
answer({"look": look})
`
	b := e.run([]string{"--userns", "auto"}, python(t), "-c", ask(t)+program)
	var before, after map[string]any
	b.ask("look", &before)
	for range 2 {
		b.cycle()
		b.ask("look", &after)
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("(-before +after):\n%s", d)
		}
	}
	if got := fmt.Sprint(after["map"]); got != "[0 100000 65536]" {
		t.Errorf("map %s", got)
	}
	info, err := os.Stat(b.path("/srv/crucible-test/nobody"))
	if err != nil {
		t.Fatal(err)
	}
	if got := ownerOf(info); got != 165534 {
		t.Errorf("nobody's file belongs to %d on the host", got)
	}
}

// ask is what the Python programs share.
func ask(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "ask.py"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// testTimeNamespace: the container's clocks go on from where they were, not from
// where the host's are.
func testTimeNamespace(t *testing.T, e *env) {
	const program = `answer({"clocks": lambda: {n: time.clock_gettime(getattr(time, n)) for n in ("CLOCK_MONOTONIC", "CLOCK_BOOTTIME")}})`
	b := e.run([]string{"--time-offset", "monotonic=100000", "--time-offset", "boottime=200000"}, python(t), "-c", ask(t)+program)
	var before, after, later map[string]float64
	b.ask("clocks", &before)
	b.checkpoint()
	// The time of absence is not the container's.
	const absence = 1500 * time.Millisecond
	time.Sleep(absence)
	start := time.Now()
	b.restore()
	b.ask("clocks", &after)
	for clock, was := range before {
		if passed := after[clock] - was; passed < 0 || passed > 60 {
			t.Errorf("%s jumped by %.3f s", clock, passed)
		}
	}
	b.ask("clocks", &later)
	if passed := later["CLOCK_MONOTONIC"] - after["CLOCK_MONOTONIC"]; passed <= 0 || passed > time.Since(start).Seconds() {
		t.Errorf("the clock made %.6f s", passed)
	}
	if host := hostClock(t); after["CLOCK_BOOTTIME"] < host+150000 {
		t.Errorf("boottime is %f, the host's %f: the offset is lost", after["CLOCK_BOOTTIME"], host)
	}
}

func hostClock(t testing.TB) (seconds float64) {
	t.Helper()
	data, err := os.ReadFile("/proc/uptime")
	if err == nil {
		_, err = fmt.Sscan(string(data), &seconds)
	}
	if err != nil {
		t.Fatal(err)
	}
	return seconds
}

// testAllNamespaces: everything at once.
func testAllNamespaces(t *testing.T, e *env) {
	b := e.run(bridge("--userns", "auto", "--cgroupns", "--time-offset", "boottime=1000", "--hostname", "elsewhere",
		"--tmpfs", "/scratch:size=1m", "--memory", "200m", "--pids", "50", "--ulimit", "nofile=500"),
		python(t), "-c", ask(t)+`
import resource
open("/scratch/file", "w").write("scratch")
answer({"look": lambda: {"host": socket.gethostname(), "file": open("/scratch/file").read(),
    "cgroup": open("/proc/self/cgroup").read(), "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "mounts": sorted(l.split()[4] + " " + l.split()[5] for l in open("/proc/self/mountinfo")),
    "links": sorted(os.listdir("/sys/class/net")), "pid": os.getpid()}})`)
	var before, after map[string]any
	b.ask("look", &before)
	address := b.address
	for range 2 {
		b.cycle()
		b.ask("look", &after)
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("(-before +after):\n%s", d)
		}
	}
	if b.address != address {
		t.Errorf("address %s, before %s", b.address, address)
	}
	// Nobody listens there, but somebody must say so.
	if _, err := net.DialTimeout("tcp", b.address+":9", patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect to %s: %v", b.address, err)
	}
}
