package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Shared is the environment variable that limits LeakCheck to what certainly
// is the test's own.
const Shared = "CRUCIBLE_TEST_SHARED"

// ownerEnv is set in what a test starts, and inherited from there on.
const ownerEnv = "CRUCIBLE_TEST_OWNER"

// settle is how long LeakCheck gives the kernel, and monitors, to finish.
const settle = 2 * time.Second

// LeakCheck makes a test fail that leaves anything behind on the machine: at
// its end there must be nothing that was not there at the call. Below dirs, of
// which state roots are the common ones, files count as well, except committed
// images. Cleanups that are registered later run before the comparison, so call
// it early. What goes away by itself has two seconds to do so.
//
// A test that uses it cannot be parallel.
func LeakCheck(t testing.TB, dirs ...string) {
	t.Helper()
	unlock := alone(t)
	// What this process opens once and keeps is not the test's: the runtime's
	// epoll and eventfd.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	s := newScope(t.Name(), dirs)
	t.Setenv(ownerEnv, s.tag)
	before, err := s.snapshot()
	if err != nil {
		unlock()
		t.Fatalf("look for leaks: %v", err)
	}
	t.Cleanup(func() {
		defer unlock()
		leaks, err := s.wait(before, settle)
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
	tag    string   // in ownerEnv of what the test starts
	marks  []string // a text that holds one of these is about the test
	dirs   []string // whose files count
	shared bool     // leave alone what nothing ties to the test
	began  uint64   // clock ticks after the boot
}

func newScope(test string, dirs []string) *scope {
	s := &scope{dirs: dirs, shared: os.Getenv(Shared) == "1"}
	s.tag = stem() + strconv.FormatInt(time.Now().UnixNano(), 36)
	// The temporary directories of a test and its subtests begin with its name.
	test, _, _ = strings.Cut(test, "/")
	s.marks = append([]string{stem(), filepath.Join(os.TempDir(), test)}, dirs...)
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) == nil {
		const tick = 10 * time.Millisecond // USER_HZ
		s.began = uint64(time.Duration(now.Nano()) / tick)
	}
	return s
}

// An item is one thing that exists. Two snapshots are compared by its id.
type item struct {
	id, what string
	pid      int          // of a process
	owner    func() owner // nil: the text tells
}

type owner int

const (
	unknown owner = iota
	ours
	foreign
)

// ownerOf says whose a thing is, if need be by the text that describes it.
func (s *scope) ownerOf(i item) owner {
	if i.owner != nil {
		if o := i.owner(); o != unknown {
			return o
		}
	}
	for _, m := range s.marks {
		if strings.Contains(i.what, m) {
			return ours
		}
	}
	// The temporary directory of some other test.
	if strings.Contains(i.what, filepath.Join(os.TempDir(), "Test")) {
		return foreign
	}
	return unknown
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
			if known[i.id] {
				continue
			}
			if owner := s.ownerOf(i); owner == foreign || s.shared && owner == unknown {
				continue
			}
			leaks = append(leaks, Leak{Kind: k.name, What: i.what})
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
func (s *scope) wait(before snapshot, patience time.Duration) ([]Leak, error) {
	for deadline := time.Now().Add(patience); ; {
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

// alone makes tests that look for leaks wait for each other, those of this
// process excepted, which the testing package runs one after the other.
func alone(t testing.TB) (release func()) {
	t.Helper()
	turn.Lock()
	defer turn.Unlock()
	if turn.users == 0 {
		dir, err := cacheDir()
		if err == nil {
			turn.unlock, err = lockWithin(filepath.Join(dir, "leaks.lock"), time.Minute)
		}
		if err != nil {
			t.Logf("leaks of another test may be reported here: %v", err)
			turn.unlock = func() {}
		}
	}
	turn.users++
	return func() {
		turn.Lock()
		defer turn.Unlock()
		if turn.users--; turn.users == 0 {
			turn.unlock()
		}
	}
}

var turn struct {
	sync.Mutex
	users  int
	unlock func()
}

// lockWithin is lockFile with an end: a test that hangs must not hold up all.
func lockWithin(path string, patience time.Duration) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && err != unix.EINTR || time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// sortItems brings items into an order that people can read.
func sortItems(items []item) []item {
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.what, b.what) })
	return items
}
