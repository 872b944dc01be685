package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownerEnv is set in what a test starts, and inherited from there on.
const ownerEnv = "CRUCIBLE_TEST_OWNER"

// settle is how long LeakCheck gives the kernel, and monitors, to finish on a
// machine that has much else to do.
const settle = 30 * time.Second

// patience is settle, but in a test of LeakCheck.
var patience = settle

// LeakCheck makes a test fail that leaves anything behind on the machine: at
// its end there must be nothing of its own that was not there at the call.
// Below dirs, of which state roots are the common ones, files count as well,
// except committed images, and so does all in the directory for temporary
// files, which is the test's alone from here on. Cleanups that are registered
// later run before the comparison, so call it early. What goes away by itself
// has half a minute to do so.
//
// A test that uses it cannot be parallel. Subtests of it can, and a leak says
// which of them gave it its name.
func LeakCheck(t testing.TB, dirs ...string) {
	t.Helper()
	// What this process opens once and keeps is not the test's: the runtime's
	// epoll and eventfd.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	s := newScope(t, dirs)
	before, err := s.snapshot()
	if err != nil {
		t.Fatalf("look for leaks: %v", err)
	}
	t.Cleanup(func() {
		leaks, err := s.wait(before, patience)
		if err != nil {
			t.Errorf("look for leaks: %v", err)
		}
		for _, l := range leaks {
			t.Errorf("leak: %s", l)
		}
		sweep()
	})
}

// Leak is something that a test left behind.
type Leak struct{ Kind, What string }

func (l Leak) String() string { return l.Kind + " " + l.What }

// scope is what one LeakCheck looks at, and whose things it asks for.
type scope struct {
	tag   string   // in ownerEnv of what the test starts
	marks []string // a text that holds one of these is about the test
	dirs  []string // whose files count
	temp  string   // where all files count
	net   bool     // the network namespace is this process's alone
}

func newScope(t testing.TB, dirs []string) *scope {
	t.Helper()
	s := &scope{tag: stem() + strconv.FormatInt(time.Now().UnixNano(), 36), dirs: dirs, net: ownNetwork()}
	// The test's own directory is made before the one that must be empty.
	s.marks = append([]string{stem(), filepath.Dir(t.TempDir()) + "/"}, dirs...)
	s.temp = privateTemp(t)
	t.Setenv(ownerEnv, s.tag)
	return s
}

// privateTemp gives the test, its subtests and what they start a directory for
// temporary files: nobody else's are in there, so none needs to be told apart.
func privateTemp(t testing.TB) string {
	t.Helper()
	dir := os.TempDir()
	if strings.HasPrefix(filepath.Base(dir), stem()) {
		return dir // of a check around this one
	}
	dir, err := os.MkdirTemp(dir, stem())
	if err == nil {
		err = os.Chmod(dir, 0o777|os.ModeSticky)
	}
	if err != nil {
		t.Fatal(err)
	}
	// What is left was reported, and may be a mount: it stays.
	t.Cleanup(func() { _ = os.Remove(dir) })
	t.Setenv("TMPDIR", dir)
	return dir
}

// An item is one thing that exists. Two snapshots are compared by its id.
type item struct {
	id, what string
	tie      string       // more text that tells whose it is
	pid      int          // of a process
	owner    func() owner // nil: the text tells
}

type owner int

const (
	unknown owner = iota
	ours
	foreign
)

// ours says whether something ties a thing to the test. Nothing else counts:
// others use the machine at the same time, and make and leave what they like.
func (s *scope) ours(i item) bool {
	if i.owner != nil {
		if o := i.owner(); o != unknown {
			return o == ours
		}
	}
	return s.marked(i.what + " " + i.tie)
}

func (s *scope) marked(text string) bool {
	for _, m := range s.marks {
		if strings.Contains(text, m) {
			return true
		}
	}
	for _, root := range stateRoots() {
		if strings.Contains(text, Bridge(root)) {
			return true
		}
	}
	return false
}

type snapshot map[string][]item // by kind

// kinds are what is looked at, in the order in which leaks are reported: causes
// before what they hold.
func kinds() []struct {
	name string
	list func(*scope) ([]item, error)
} {
	return []struct {
		name string
		list func(*scope) ([]item, error)
	}{
		{"process", listProcesses},
		{"descriptor", listDescriptors},
		{"cgroup", listCgroups},
		{"mount", listMounts},
		{"link", listLinks},
		{"address", listAddresses},
		{"forwarding entry", listForwarding},
		{"nftables", listNftables},
		{"file", listFiles},
	}
}

// always is for what can be nobody else's.
func always() owner { return ours }

func (s *scope) snapshot() (snapshot, error) {
	all := snapshot{}
	for _, k := range kinds() {
		items, err := k.list(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		all[k.name] = items
	}
	return all, nil
}

// leaks compares what is there now with what was there before.
func (s *scope) leaks(before snapshot) (leaks []Leak, pids []int, err error) {
	now, err := s.snapshot()
	if err != nil {
		return nil, nil, err
	}
	for _, k := range kinds() {
		known := map[string]bool{}
		for _, i := range before[k.name] {
			known[i.id] = true
		}
		for _, i := range now[k.name] {
			if known[i.id] || !s.ours(i) {
				continue
			}
			leak := Leak{Kind: k.name, What: i.what}
			if test := nameGiver(i.what + " " + i.tie); test != "" {
				leak.What += ", of " + test
			}
			leaks = append(leaks, leak)
			if i.pid > 0 {
				pids = append(pids, i.pid)
			}
		}
	}
	return leaks, pids, nil
}

// wait compares until there is no leak, or the time is up. It looks again when
// a leaked process ends or a mount goes away, and from time to time, since the
// other kinds have no event.
func (s *scope) wait(before snapshot, longest time.Duration) ([]Leak, error) {
	for deadline := time.Now().Add(longest); ; {
		leaks, pids, err := s.leaks(before)
		if len(leaks) == 0 || err != nil || !time.Now().Before(deadline) {
			return leaks, err
		}
		nap(pids, 20*time.Millisecond)
	}
}

func nap(pids []int, longest time.Duration) {
	var fds []unix.PollFd
	for _, pid := range pids[:min(len(pids), 64)] {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		defer unix.Close(fd)
		// A zombie's is ready at once, and stays so.
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n == 0 {
			fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	if f, err := os.Open("/proc/self/mountinfo"); err == nil {
		defer f.Close()
		fds = append(fds, unix.PollFd{Fd: int32(f.Fd()), Events: unix.POLLPRI})
	}
	_, _ = unix.Poll(fds, int(longest.Milliseconds()))
}

// sortItems brings items into an order that people can read.
func sortItems(items []item) []item {
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.what, b.what) })
	return items
}
