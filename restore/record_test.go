package restore_test

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
	"crucible/images"
	"crucible/proto/imagepb"
)

// record is what processes.pb says of the first process of a container.
type record struct {
	*imagepb.Process
	t     *testing.T
	all   *imagepb.Processes
	files map[uint32]*imagepb.OpenFile
	fds   map[string]uint32 // by the program's names for them
}

// The record of a process is compared with what the kernel says of the same one,
// and with what it has set up.
func TestRecord(t *testing.T) {
	testenv.Root(t)
	e := &env{t: t, bin: testenv.Binary(t), root: testenv.StateRoot(t)}
	source, err := os.ReadFile("testdata/record.py")
	if err != nil {
		t.Fatal(err)
	}
	b := e.run([]string{"--net", "none"}, python(t), "-c", string(source))
	var line []string
	eventually(t, "the program's setting up", func() error {
		if line = strings.Fields(b.logs()[0]); len(line) < 2 {
			return fmt.Errorf("%q", line)
		}
		return nil
	})
	b.checkpoint("-R", "--file-locks")
	r := &record{t: t, all: &imagepb.Processes{}, files: map[uint32]*imagepb.OpenFile{}, fds: map[string]uint32{}}
	image, err := images.Store{Dir: filepath.Join(e.root, "images")}.Open(b.name)
	if err != nil {
		t.Fatal(err)
	}
	if err := image.Get(images.Processes, r.all); err != nil || !r.all.Complete {
		t.Fatalf("%v, not complete: %s", err, r.all.GetIncomplete())
	}
	r.Process = r.all.Processes[0]
	for _, f := range r.all.Files {
		r.files[f.Id] = f
	}
	for _, word := range line[1:] {
		name, fd, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(fd, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range r.Descriptors {
			if d.Fd == uint32(n) {
				r.fds[name] = d.File
			}
		}
	}
	r.checkStatus(b)
	r.checkMaps(b)
	r.checkFiles(b)
	r.checkSockets()
	r.checkRest()
}

func (r *record) file(name string) *imagepb.OpenFile {
	r.t.Helper()
	f := r.files[r.fds[name]]
	if f == nil {
		r.t.Fatalf("no descriptor for %s among %v", name, r.Descriptors)
	}
	return f
}

// must compares a value with what it must be.
func (r *record) must(what string, got, want any) {
	r.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func procFile(t *testing.T, b *box, name string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", b.pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// checkStatus compares with /proc/PID/status and limits.
func (r *record) checkStatus(b *box) {
	status := map[string]string{}
	for _, line := range strings.Split(procFile(r.t, b, "status"), "\n") {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.TrimSpace(value)
	}
	hex := func(v uint64) string { return fmt.Sprintf("%016x", v) }
	c := r.Credentials
	r.must("CapInh", hex(c.Inheritable), status["CapInh"])
	r.must("CapPrm", hex(c.Permitted), status["CapPrm"])
	r.must("CapEff", hex(c.Effective), status["CapEff"])
	r.must("CapBnd", hex(c.Bounding), status["CapBnd"])
	r.must("CapAmb", hex(c.Ambient), status["CapAmb"])
	r.must("NoNewPrivs", c.NoNewPrivs, status["NoNewPrivs"] == "1")
	r.must("Threads", len(r.Tasks), status["Threads"])
	r.must("Umask", fmt.Sprintf("%04o", r.Umask), status["Umask"])
	r.must("Cpus_allowed_list", r.CpusAllowed, status["Cpus_allowed_list"])
	r.must("SigBlk", hex(r.Tasks[0].Blocked), status["SigBlk"])
	pending := uint64(0)
	for _, s := range append(slices.Clone(r.PendingSignals), r.Tasks[0].PendingSignals...) {
		pending |= 1 << (s - 1)
	}
	var sets [2]uint64
	for n, key := range []string{"SigPnd", "ShdPnd"} {
		v, err := strconv.ParseUint(status[key], 16, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		sets[n] = v
	}
	r.must("pending signals", hex(pending), hex(sets[0]|sets[1]))
	if bits.OnesCount64(pending) != 1 {
		r.t.Errorf("%016x are pending", pending)
	}
	caught, ignored := uint64(0), uint64(0)
	for _, a := range r.Actions {
		switch a.Handler {
		case 0:
		case 1:
			ignored |= 1 << (a.Signal - 1)
		default:
			caught |= 1 << (a.Signal - 1)
		}
	}
	r.must("SigCgt", hex(caught), status["SigCgt"])
	r.must("SigIgn", hex(ignored), status["SigIgn"])

	limits := procFile(r.t, b, "limits")
	for _, l := range r.Limits {
		if l.Resource == "nofile" {
			r.must("nofile", fmt.Sprint(l.Soft, l.Hard), "100 200")
		}
	}
	r.must("number of limits", len(r.Limits), strings.Count(limits, "\n")-1)
}

// checkMaps compares with /proc/PID/maps.
func (r *record) checkMaps(b *box) {
	var want, got []string
	for _, line := range strings.Split(strings.TrimSpace(procFile(r.t, b, "maps")), "\n") {
		f := strings.Fields(line)
		path := ""
		if len(f) > 5 && strings.HasPrefix(f[5], "/") && !strings.HasPrefix(f[5], "/memfd:") {
			path = " " + f[5]
		}
		if !strings.Contains(line, "[v") { // the kernel's own, which CRIU merges
			want = append(want, f[0]+" "+f[1]+path)
		}
	}
	for _, m := range r.Mappings {
		perm := []byte("---p")
		for n, c := range "rwx" {
			if m.Protection&(1<<n) != 0 {
				perm[n] = byte(c)
			}
		}
		if m.Flags&1 != 0 {
			perm[3] = 's'
		}
		path := ""
		if m.Kind == "file" {
			path = " " + m.Path
		}
		if m.Kind[0] != 'v' {
			got = append(got, fmt.Sprintf("%08x-%08x %s%s", m.Start, m.End, perm, path))
		}
	}
	// A stack shows the pages that have been touched; CRIU counts its guard.
	if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
		r.t.Errorf("mappings are\n%s\nwant\n%s", a, b)
	}
}

func (r *record) checkFiles(b *box) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.pid))
	if err != nil {
		r.t.Fatal(err)
	}
	r.must("number of descriptors", len(r.Descriptors), len(entries))
	r.must("cwd", r.Cwd, "/var/tmp/here")
	f := r.file("file")
	r.must("file", fmt.Sprint(f.Kind, " ", f.Path, " ", f.Size, " ", f.Position), "file /var/tmp/here/file 100 100")
	r.must("memfd", r.file("memfd").Kind+" "+r.file("memfd").Path, "memfd record")
	r.must("pipe", r.file("pipe").Kind, "pipe")
	r.must("eventfd", fmt.Sprint(r.file("eventfd").Kind, r.file("eventfd").Value), "eventfd7")
	timer := r.file("timerfd").GetTimer()
	if timer.GetClock() != 1 || timer.IntervalNs != 9e9 || timer.ValueNs > 4000e9 || timer.ValueNs < 3000e9 {
		r.t.Errorf("timerfd is %v", timer)
	}
	if w := r.file("epoll").Watches; len(w) != 1 || w[0].Events&1 == 0 {
		r.t.Errorf("epoll waits for %v", w)
	}
	if w := r.file("inotify").Watches; len(w) != 1 || w[0].Events != 0x100 {
		r.t.Errorf("inotify watches %v", w)
	}
	for _, d := range r.Descriptors {
		var flags uint64
		if _, err := fmt.Sscanf(procFile(r.t, b, fmt.Sprint("fdinfo/", d.Fd)), "pos: %d\nflags: %o", new(int64), &flags); err != nil {
			r.t.Fatal(err)
		}
		r.must(fmt.Sprintf("close-on-exec of descriptor %d", d.Fd), d.CloseOnExec, flags&unix.O_CLOEXEC != 0)
	}
	var locks []string
	for _, l := range r.Locks {
		locks = append(locks, fmt.Sprint(l.Kind, " ", l.Start, " ", l.Length))
	}
	slices.Sort(locks)
	r.must("locks", strings.Join(locks, ", "), "flock 0 0, posix 5 10")
}

func (r *record) checkSockets() {
	sockets := map[uint32]*imagepb.Socket{}
	for _, s := range r.all.Sockets {
		sockets[s.File] = s
	}
	for name, want := range map[string]string{
		"tcp":   "2 1 6 10 127.0.0.1:8080 0.0.0.0:0 7 [reuseaddr]",
		"udp":   "10 2 17 7 [::1]:5353 [::]:0 0 [v6only]",
		"named": "1 1 0 10 @record  3 []",
		"pair":  "1 1 0 1   0 []",
	} {
		s := sockets[r.fds[name]]
		r.must(name, fmt.Sprint(s.GetFamily(), " ", s.GetType(), " ", s.GetProtocol(), " ", s.GetState(), " ", s.GetLocal(), " ", s.GetRemote(), " ", s.GetBacklog(), " ", s.GetOptions()), want)
	}
	if s := sockets[r.fds["pair"]]; s.GetPeer() == 0 || s.GetSendBuffer() == 0 {
		r.t.Errorf("one of a pair is %v", s)
	}
}

func (r *record) checkRest() {
	zombie := r.all.Processes[1]
	r.must("zombie", fmt.Sprint(zombie.State, " ", zombie.ExitCode, " ", len(zombie.Tasks), " ", zombie.Ppid), fmt.Sprint("Z ", 3<<8, " 0 ", r.Pid))
	r.must("nice", r.Tasks[0].Nice, 5)
	r.must("second thread", r.Tasks[1].Comm, "second")
	if len(r.IntervalTimers) != 1 || r.IntervalTimers[0].Which != "real" || r.IntervalTimers[0].IntervalUs != 60e6 || r.IntervalTimers[0].ValueUs > 5000e6 {
		r.t.Errorf("interval timers are %v", r.IntervalTimers)
	}
	if r.Cgroup == "" || r.MemoryId == 0 || r.Ppid != 0 {
		r.t.Errorf("cgroup %q, memory %d, parent %d", r.Cgroup, r.MemoryId, r.Ppid)
	}
}

// A name need not be UTF-8, which a message's text must be.
func TestStrangeName(t *testing.T) {
	testenv.Root(t)
	e := &env{t: t, bin: testenv.Binary(t), root: testenv.StateRoot(t)}
	b := e.run(nil, program(t, "bash"), "-c", `exec -a "$(printf 'a\377b')" sleep 1000`)
	eventually(t, "the program", func() error {
		if text := procFile(t, b, "cmdline"); !strings.HasPrefix(text, "a\xff") {
			return fmt.Errorf("%q", text)
		}
		return nil
	})
	b.cycle()
	if out := e.do("image", "show", b.name); !strings.Contains(out, `a\xffb 1000`) {
		t.Errorf("shown as\n%s", out)
	}
}
