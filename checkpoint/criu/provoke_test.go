package criu

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

var update = flag.Bool("update", false, "write the logs that the tests provoke to testdata")

// provocation makes CRIU fail.
type provocation struct {
	kind    string // what must be made of it
	detail  string // which of several with that kind
	hold    string
	box     bool // in namespaces of its own; CRIU is outside
	change  func(t *testing.T, cmd *exec.Cmd)
	options func(t *testing.T, o *DumpOptions)
	child   bool // dump the workload's child alone, whose session leader is the workload
	after   func(w *workload)
}

func dumpProvocations() []provocation {
	return []provocation{
		{kind: "file-outside", hold: "detached-mount"},
		{kind: "tcp-established", hold: "tcp"},
		{kind: "tcp-in-flight", hold: "tcp-in-flight", options: func(_ *testing.T, o *DumpOptions) { o.TCPEstablished = true }},
		{kind: "mptcp", hold: "mptcp"},
		{kind: "vsock", hold: "vsock"},
		{kind: "udp-corked", hold: "corked"},
		{kind: "io-uring", hold: "io-uring"},
		{kind: "mapping", hold: "secret"},
		{kind: "userfaultfd", hold: "uffd"},
		{kind: "perf", hold: "perf"},
		{kind: "ghost-limit", hold: "ghost"},
		{kind: "link-remap", hold: "link"},
		{kind: "file-locks", hold: "flock"},
		{kind: "traced", hold: "traced"},
		{kind: "sysv-shm", hold: "shm"},
		{kind: "namespace-nested", hold: "uts"},
		{kind: "shell-job", hold: "child", child: true},
		{kind: "rlimit", hold: "other-user"},
		{kind: "unix-external", hold: "inherited", change: outsideSocket},
		{kind: "unix-stream", hold: "inherited", change: outsideSocket, options: func(_ *testing.T, o *DumpOptions) { o.ExtUnixSockets = true }},
		{kind: "tty-outside", hold: "inherited", change: outsideTerminal},
		{kind: "freezer-path", hold: "file", options: func(t *testing.T, o *DumpOptions) { o.FreezeCgroup = t.TempDir() }},
		{kind: "track-mem", hold: "file", options: func(_ *testing.T, o *DumpOptions) { o.TrackMemory = true }},
		{kind: "option-unknown", hold: "file", options: func(_ *testing.T, o *DumpOptions) { o.Extra = []string{"no-such-option=1"} }},
		{kind: "option-argument", hold: "file", options: func(_ *testing.T, o *DumpOptions) { o.Extra = []string{"tcp-close=1"} }},
		{kind: "no-space", hold: "file", options: func(t *testing.T, o *DumpOptions) { o.Images = smallDir(t) }},
	}
}

func TestProvokeDump(t *testing.T) {
	c := theCRIU(t)
	tracks, err := c.Feature(t.Context(), "mem_dirty_track")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range append(dumpProvocations(), moreDumpProvocations()...) {
		if x.kind == "track-mem" && tracks.State == Have {
			continue // on this kernel that succeeds
		}
		t.Run(detailed(x.kind, x.detail), func(t *testing.T) {
			w := x.start(t)
			images := openDir(t, t.TempDir())
			o := DumpOptions{Common: Common{Images: images, Work: images, logLevel: 4}, Pid: w.pid, LeaveRunning: true}
			if x.child {
				o.Pid = children(w.pid)[0]
			}
			if x.options != nil {
				x.options(t, &o)
			}
			_, err := start(t, c, StartOptions{}).Dump(t.Context(), o, nil)
			expectKind(t, err, x.kind, detailed("dump-"+x.kind, x.detail), o.Work)
			if !lives(w.pid) {
				t.Error("the process is dead after the failure")
			}
		})
	}
}

func detailed(kind, detail string) string {
	if detail == "" {
		return kind
	}
	return kind + "." + detail
}

func (x *provocation) start(t *testing.T) *workload {
	var w *workload
	name := "hold:" + x.hold
	if _, own := workloads()[x.hold]; own {
		name = x.hold
	}
	if x.box {
		w = startBoxed(t, name).workload
	} else {
		w = startWorkload(t, name, func(cmd *exec.Cmd) {
			if x.change != nil {
				x.change(t, cmd)
			}
		})
	}
	if x.after != nil {
		x.after(w)
	}
	return w
}

// expectKind checks what is made of an error, and keeps CRIU's log under that name.
func expectKind(t *testing.T, err error, kind, name string, work *os.File) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("no error of CRIU's: %v", err)
	}
	t.Logf("%v\n\tobject %q errno %d source %s\n\t%s", e, e.Object, e.Errno, e.Source, e.Hint())
	if e.Kind != kind {
		t.Fatalf("kind %q, want %q\n%s", e.Kind, kind, logOf(work))
	}
	if e.Remedy == "" || e.Cause == "" {
		t.Error("no remedy")
	}
	if *update {
		keepLog(t, name, work)
	}
}

// keepLog stores what matters of a log.
func keepLog(t *testing.T, name string, work *os.File) {
	data, err := os.ReadFile(filepath.Join(work.Name(), "criu.log"))
	if err != nil {
		return
	}
	lines := strings.SplitAfter(string(data), "\n")
	var kept []string
	for i, line := range lines {
		l := ParseLine(line)
		if strings.Contains(line, "Running on") || strings.Contains(line, "go-build") {
			continue
		}
		if l.Level != Raw || i < 3 || i > len(lines)-30 {
			line = strings.ReplaceAll(line, work.Name(), "/images")
			for _, part := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '[' || r == ']' || r == '=' }) {
				if at := strings.Index(part, strings.TrimPrefix(os.TempDir(), "/")+"/"); at >= 0 {
					line = strings.ReplaceAll(line, part[at:], "box/"+filepath.Base(part))
				}
			}
			kept = append(kept, line)
		}
	}
	fatal(t, os.MkdirAll("testdata/logs", 0o755))
	fatal(t, os.WriteFile("testdata/logs/"+name+".log", []byte(strings.Join(kept, "")), 0o644))
}

func outsideSocket(t *testing.T, cmd *exec.Cmd) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	fatal(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
}

func outsideTerminal(t *testing.T, cmd *exec.Cmd) {
	master, slave := openPty(t)
	cmd.ExtraFiles = append(cmd.ExtraFiles, slave)
	cmd.SysProcAttr.Setctty, cmd.SysProcAttr.Ctty = true, 4
	t.Cleanup(func() { master.Close(); slave.Close() })
}

// smallDir is a directory in which there is no room.
func smallDir(t *testing.T) *os.File {
	dir := t.TempDir()
	if err := unix.Mount("crucible-test", dir, "tmpfs", 0, "size=16k"); err != nil {
		testenv.Skip(t, "mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return openDir(t, dir)
}

// restoreProvocation spoils what a good dump left, and restores.
type restoreProvocation struct {
	kind   string
	detail string
	hold   string
	box    bool // in namespaces of its own
	inside bool // and CRIU in its network namespace, on restore in a fresh one
	start  func(t *testing.T, cmd *exec.Cmd)
	spoil  func(t *testing.T, w *workload, images string)
	dump   func(o *DumpOptions)
	change func(o *RestoreOptions)
}

func restoreProvocations() []restoreProvocation {
	file := func(w *workload) string { return filepath.Join(w.Dir, "file") }
	return []restoreProvocation{
		{kind: "pid-in-use", hold: "file", dump: func(o *DumpOptions) { o.LeaveRunning = true }},
		{kind: "file-missing", hold: "file", spoil: func(t *testing.T, w *workload, _ string) { fatal(t, os.Remove(file(w))) }},
		{kind: "file-changed", hold: "file", spoil: func(t *testing.T, w *workload, _ string) {
			fatal(t, os.WriteFile(file(w), []byte("longer"), 0o644))
		}},
		{kind: "image-magic", hold: "file", spoil: func(t *testing.T, w *workload, images string) { damage(t, images, "core-*.img", 0) }},
		{kind: "image-damaged", hold: "file", spoil: func(t *testing.T, w *workload, images string) {
			fatal(t, os.Remove(filepath.Join(images, "inventory.img")))
		}},
		{kind: "address-in-use", hold: "listener", spoil: func(t *testing.T, w *workload, _ string) {
			text, err := os.ReadFile(filepath.Join(w.Dir, "port"))
			fatal(t, err)
			port, err := strconv.Atoi(string(text))
			fatal(t, err)
			fd, err := listenOn([4]byte{127, 0, 0, 1}, port)
			fatal(t, err)
			t.Cleanup(func() { unix.Close(fd) })
		}},
		{kind: "tcp-established", hold: "tcp", dump: func(o *DumpOptions) { o.TCPEstablished = true; o.NetworkLock = LockSkip }},
		{kind: "tcp-close", hold: "tcp", dump: func(o *DumpOptions) { o.TCPClose = true }},
		{kind: "uffd", hold: "file", change: func(o *RestoreOptions) { o.LazyPages = true }},
		{kind: "unix-bind", hold: "unix-listener", spoil: func(t *testing.T, w *workload, _ string) {
			fatal(t, os.RemoveAll(filepath.Join(w.Dir, "socket")))
			fatal(t, os.MkdirAll(filepath.Join(w.Dir, "socket", "sub"), 0o700))
		}},
	}
}

func TestProvokeRestore(t *testing.T) {
	c := theCRIU(t)
	for _, x := range append(restoreProvocations(), moreRestoreProvocations()...) {
		t.Run(detailed(x.kind, x.detail), func(t *testing.T) {
			w := (&provocation{hold: x.hold, box: x.box, change: x.start}).start(t)
			images := openDir(t, t.TempDir())
			o := DumpOptions{Common: Common{Images: images, logLevel: 4}, Pid: w.pid}
			if x.dump != nil {
				x.dump(&o)
			}
			var so StartOptions
			if x.inside {
				so.NetNS = netns(t, w.pid)
			}
			p := start(t, c, so)
			if _, err := p.Dump(t.Context(), o, nil); err != nil {
				t.Fatalf("%v\n%s", err, logOf(images))
			}
			p.Close()
			if !o.LeaveRunning {
				w.gone()
			}
			if x.spoil != nil {
				x.spoil(t, w, images.Name())
			}
			r := RestoreOptions{Common: Common{Images: images, logLevel: 4}, Sibling: true}
			if x.box {
				r.Root = w.root
			}
			if x.change != nil {
				x.change(&r)
			}
			if x.inside {
				so.NetNS = freshNetNS(t)
			}
			res, err := start(t, c, so).Restore(context.Background(), r, nil)
			if err == nil {
				reapTree(res.Pid)
			}
			expectKind(t, err, x.kind, detailed("restore-"+x.kind, x.detail), images)
			if o.LeaveRunning && !lives(w.pid) {
				t.Error("the failed restore has killed who had its number")
			}
		})
	}
}

func damage(t *testing.T, dir, pattern string, at int64) {
	names, _ := filepath.Glob(filepath.Join(dir, pattern))
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		fatal(t, err)
		_, err = f.WriteAt([]byte("damage"), at)
		fatal(t, err)
		f.Close()
	}
}

func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	fatal(t, err)
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	fatal(t, err)
	fatal(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	fatal(t, err)
	return master, slave
}
