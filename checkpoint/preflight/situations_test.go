package preflight

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/testenv"
)

// The cases that take more than a thing in a box.

func only(t *testing.T, r Report) Finding {
	t.Helper()
	for _, f := range r.Findings {
		t.Log(f)
	}
	if len(r.Findings) != 1 {
		t.Fatalf("%d findings, is to be one", len(r.Findings))
	}
	return r.Findings[0]
}

// A process in the cgroup that somebody put there, with one below it.
func TestTaskFromOutside(t *testing.T) {
	b := startBox(t, "nothing")
	cmd := exec.Command("sh", "-c", "sleep 100 & wait")
	must(t, cmd.Start())
	var child int
	eventually(t, "the child", func() bool { child = firstChild(cmd.Process.Pid); return child != 0 })
	defer func() { _ = unix.Kill(child, unix.SIGKILL); _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	s := b.subject()
	s.Pids = append(s.Pids, cmd.Process.Pid, child)
	r, err := Inspect(t.Context(), s)
	must(t, err)
	f := only(t, r)
	if f.Kind != "task-outside" || !f.Blocks || f.Pid != cmd.Process.Pid || f.Command != "sh" || f.FD != -1 {
		t.Errorf("%+v", f)
	}
}

func firstChild(pid int) int {
	data, _ := os.ReadFile("/proc/" + itoa(pid) + "/task/" + itoa(pid) + "/children")
	var child int
	_ = json.Unmarshal([]byte(strings.TrimSpace(string(data))), &child)
	return child
}

func TestSessionFromOutside(t *testing.T) {
	b := startBox(t, "nothing", func(c *exec.Cmd) { c.SysProcAttr.Setsid = false })
	f := only(t, b.inspect(Options{ShellJob: true}))
	if f.Kind != "session-outside" || !f.Blocks || f.Pid != b.pid {
		t.Errorf("%+v", f)
	}
}

func TestTerminalFromOutside(t *testing.T) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(master)
	must(t, unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	must(t, err)
	terminal, err := os.OpenFile("/dev/pts/"+itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer terminal.Close()
	b := startBox(t, "host file", func(c *exec.Cmd) { c.ExtraFiles[1] = terminal })
	r := b.inspect(Options{})
	if f := only(t, r); f.Kind != "shell-job" || f.Blocks || f.FD != hostFD || !r.Needs.ShellJob {
		t.Errorf("%+v, needs %+v", f, r.Needs)
	}
	if r := b.inspect(Options{ShellJob: true}); len(r.Findings) != 0 || !r.Needs.ShellJob {
		t.Errorf("was chosen, and still: %+v", r)
	}
}

// A unix socket that was made outside, connected or not.
func TestSocketsFromOutside(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	for _, test := range []struct {
		name     string
		make     func() ([2]int, error) // the first is the box's
		hostNet  bool
		kind     string
		allowed  bool // by ExtUnixSockets
		wantPath string
	}{
		{"other network namespace", func() ([2]int, error) { return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0) }, false, "unix-outside", false, ""},
		{"stream", func() ([2]int, error) { return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0) }, true, "unix-external", false, ""},
		{"datagrams to a nameless one", func() ([2]int, error) { return unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0) }, true, "unix-external", false, ""},
		{"datagrams to a name", func() (p [2]int, err error) {
			if p[1], err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0); err != nil {
				return p, err
			}
			if err := unix.Bind(p[1], &unix.SockaddrUnix{Name: dir + "/log"}); err != nil {
				return p, err
			}
			p[0], err = unixClient(dir+"/log", unix.SOCK_DGRAM)
			return p, err
		}, true, "unix-external", true, dir + "/log"},
		{"stream that nobody has accepted", func() (p [2]int, err error) {
			if p[1], err = unixListener(dir + "/served"); err != nil {
				return p, err
			}
			p[0], err = unixClient(dir+"/served", unix.SOCK_STREAM)
			return p, err
		}, true, "unix-dangling", false, dir + "/served"},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			pair, err := test.make()
			must(t, err)
			ours := os.NewFile(uintptr(pair[0]), "socket")
			defer ours.Close()
			defer unix.Close(pair[1])
			b := startBox(t, "host file", func(c *exec.Cmd) {
				c.ExtraFiles[1] = ours
				if test.hostNet {
					c.SysProcAttr.Cloneflags &^= unix.CLONE_NEWNET
				}
			})
			if test.hostNet {
				b.net = nil
			}
			f := only(t, b.inspect(Options{}))
			if f.Kind != test.kind || !f.Blocks || f.FD != hostFD || test.wantPath != "" && f.Path != test.wantPath {
				t.Errorf("%+v", f)
			}
			if r := b.inspect(Options{ExtUnixSockets: true}); (len(r.Findings) == 0) != test.allowed {
				t.Errorf("with ExtUnixSockets: %+v", r.Findings)
			}
		})
	}
}

// A container in a user namespace: the limits of its users can be read.
func TestUserNamespace(t *testing.T) {
	b := startBox(t, "another user")
	s := b.subject()
	s.UserNS = true
	r, err := Inspect(t.Context(), s)
	must(t, err)
	if len(r.Findings) != 0 {
		t.Errorf("%+v", r.Findings)
	}
}

// A connection cannot be brought back into one, and is not lost unawares.
func TestUserNamespaceTCP(t *testing.T) {
	b := startBox(t, "listener and clients")
	s := b.subject()
	s.UserNS = true
	for _, s.Given = range []Options{{}, {TCPEstablished: true}} {
		r, err := Inspect(t.Context(), s)
		must(t, err)
		if f := only(t, r); f.Kind != "tcp-user-namespace" || !f.Blocks || !strings.Contains(f.Remedy, "--tcp-close") {
			t.Errorf("given %+v: %+v", s.Given, f)
		}
	}
	s.Given = Options{TCPClose: true}
	r, err := Inspect(t.Context(), s)
	must(t, err)
	if len(r.Findings) != 0 || !r.Needs.TCPClose {
		t.Errorf("given %+v: %+v", s.Given, r)
	}
}

// What the user chose is not said again, or is said to be too little.
func TestGiven(t *testing.T) {
	for _, test := range []struct {
		thing string
		given Options
		kind  string
		needs func(Options) bool
	}{
		{"listener and clients", Options{TCPClose: true}, "", func(o Options) bool { return o.TCPClose && !o.TCPEstablished }},
		{"listener and clients", Options{TCPEstablished: true}, "", func(o Options) bool { return o.TCPEstablished }},
		{"waiting clients", Options{SkipInFlight: true, TCPClose: true}, "", nil},
		{"flock", Options{FileLocks: true}, "", nil},
		{"deleted file with a name", Options{LinkRemap: true}, "", nil},
		{"deleted file", Options{GhostLimit: 64 << 20}, "", func(o Options) bool { return o.GhostLimit == 64<<20 }},
		{"deleted file", Options{GhostLimit: 2 << 20}, "ghost-limit", nil},
		{"nothing", Options{IrmapPaths: []string{"/srv"}}, "", func(o Options) bool { return len(o.IrmapPaths) == 1 }},
	} {
		b := startBox(t, test.thing)
		r := b.inspect(test.given)
		if test.kind == "" && len(r.Findings) != 0 {
			t.Errorf("%s, given %+v: %v", test.thing, test.given, r.Findings)
		}
		if test.kind != "" {
			if f := only(t, r); f.Kind != test.kind || !f.Blocks {
				t.Errorf("%s, given %+v: %+v", test.thing, test.given, f)
			}
		}
		if test.needs != nil && !test.needs(r.Needs) {
			t.Errorf("%s, given %+v: needs %+v", test.thing, test.given, r.Needs)
		}
	}
}

func TestInspectOfNothing(t *testing.T) {
	if _, err := Inspect(t.Context(), Subject{Init: 1 << 30}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Inspect(ctx, Subject{Init: os.Getpid(), Pids: []int{os.Getpid()}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// A process that has ended since it was listed is nothing to speak of.
	b := startBox(t, "nothing")
	s := b.subject()
	cmd := exec.Command("true")
	must(t, cmd.Run())
	s.Pids = append(s.Pids, cmd.Process.Pid)
	if r, err := Inspect(t.Context(), s); err != nil || len(r.Findings) != 0 {
		t.Errorf("%+v, %v", r.Findings, err)
	}
}

// The list of processes is as old as the caller's: one that was born since may
// hold what would seem to be outside.
func TestBornSince(t *testing.T) {
	b := startBox(t, "peer in a child")
	s := b.subject()
	if len(s.Pids) != 2 {
		t.Fatalf("processes %v", s.Pids)
	}
	s.Pids = []int{b.pid}
	r, err := Inspect(t.Context(), s)
	must(t, err)
	if len(r.Findings) != 0 {
		t.Errorf("%+v", r.Findings)
	}
}

// In a frozen group of cgroup v1 every task is said to be uninterruptible.
func TestFrozen(t *testing.T) {
	b := startBox(t, "nothing")
	layout, err := cgroup.Detect()
	must(t, err)
	group, err := layout.Create(testenv.Name(t), nil)
	must(t, err)
	defer func() {
		_ = group.Thaw(context.Background())
		_ = group.Kill(context.Background())
		if err := group.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	must(t, group.Add(b.pid))
	_, err = group.Freeze(t.Context(), 30*time.Second)
	must(t, err)
	if r := b.inspect(Options{}); len(r.Findings) != 0 {
		t.Errorf("%+v", r.Findings)
	}
}

// Inspecting does not show in what the container sees.
func TestInspectLeavesNoTrace(t *testing.T) {
	b := startBox(t, "watched directory of the root") // makes us search directories
	dir := "/proc/" + itoa(b.pid) + "/root/srv/a"
	old := unix.NsecToTimespec(1e18)
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{old, unix.NsecToTimespec(2e18)}, 0))
	r := b.inspect(Options{})
	if len(r.Needs.IrmapPaths) != 1 {
		t.Errorf("needs %+v", r.Needs)
	}
	var st syscall.Stat_t
	must(t, syscall.Stat(dir, &st))
	if st.Atim.Nano() != old.Nano() {
		t.Errorf("access time of %s is %d", dir, st.Atim.Nano())
	}
}
