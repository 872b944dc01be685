package fingerprint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/proc"
)

// Subject is a container that stands still.
type Subject struct {
	Init  int           // its first process, as the caller numbers it
	Group *cgroup.Group // nil: cgroup values are left out, and processes found from Init on
	NetNS *os.File      // its network namespace; nil for the host's
	// Restored: it has just been restored. A periodic timerfd that had expired
	// unread is then asked whether it goes on, which nothing in /proc shows. The
	// kernel counts the periods that have passed meanwhile when it is asked,
	// instead of when it is read (fs/timerfd.c, do_timerfd_gettime): the program
	// reads the same. Before a checkpoint that is not done: CRIU would see, and
	// so restore, something else than without a fingerprint.
	Restored bool
}

// taker is a fingerprint on its way.
type taker struct {
	*facts
	ctx       context.Context
	subject   Subject
	processes []*process  // by number inside
	inside    map[int]int // number outside, number inside; of processes and of threads
	names     map[object]string
	holders   map[object]holder
	mounts    map[string]string // mount id of init's namespace, what we call it
	buf       []byte
}

// process is one process of the container.
type process struct {
	pid     int // outside
	inside  int
	threads []thread
	fds     []descriptor
	pidfd   int      // -1 where there is none
	robust  []uint64 // where the threads keep their lists of robust futexes
	zombie  bool
}

type thread struct{ tid, inside int }

func (p *process) key() string { return fmt.Sprintf("process/%d", p.inside) }

func (p *process) path(file string) string { return filepath.Join("/proc", strconv.Itoa(p.pid), file) }

// Take writes down what the kernel shows. The container must stand still, or
// the facts do not fit together.
func Take(ctx context.Context, s Subject) (*Fingerprint, error) {
	t := &taker{facts: newFacts(), ctx: ctx, subject: s, inside: map[int]int{}, buf: make([]byte, 1<<20)}
	defer t.close()
	if err := t.findProcesses(); err != nil {
		return nil, fmt.Errorf("take a fingerprint: %w", err)
	}
	t.nameObjects()
	t.takeMounts()
	for _, p := range t.processes {
		for _, thread := range p.threads {
			t.takeThread(p, thread)
		}
		t.takeProcess(p)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("take a fingerprint: %w", context.Cause(ctx))
		}
	}
	t.takeSharing()
	t.takeSockets()
	t.takeNamespaces()
	t.takeCgroup()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("take a fingerprint: %w", context.Cause(ctx))
	}
	return t.fingerprint(), nil
}

func (t *taker) close() {
	for _, p := range t.processes {
		if p.pidfd >= 0 {
			unix.Close(p.pidfd)
		}
	}
}

// findProcesses finds those that descend from the first, and those that stand
// in the group beside it, such as one that `exec` has started.
func (t *taker) findProcesses() error {
	tree, err := proc.Root.Tree(t.subject.Init)
	if err != nil {
		return err
	}
	var pids []int
	for _, p := range tree.All() {
		pids = append(pids, p.PID)
	}
	if t.subject.Group != nil {
		more, err := t.subject.Group.Pids()
		if err != nil {
			return err
		}
		pids = append(pids, more...)
	}
	slices.Sort(pids)
	for _, pid := range slices.Compact(pids) {
		p, err := t.findProcess(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not frozen: that is the caller's to know
		}
		if err != nil {
			return err
		}
		t.processes = append(t.processes, p)
	}
	slices.SortFunc(t.processes, func(a, b *process) int { return a.inside - b.inside })
	return nil
}

func (t *taker) findProcess(pid int) (*process, error) {
	status, err := proc.Root.Status(pid)
	if err != nil {
		return nil, err
	}
	p := &process{pid: pid, inside: innermost(status.NSPID, pid), pidfd: -1, zombie: status.State == "Z" || status.State == "X"}
	t.inside[pid] = p.inside
	if !p.zombie {
		if p.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			p.pidfd = -1
		}
		if p.fds, err = descriptors(p); err != nil {
			t.cannot(p.key()+"/fd", err)
		}
	}
	entries, err := os.ReadDir(p.path("task"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		status, err := proc.Root.Status(tid)
		if err != nil {
			return nil, err
		}
		one := thread{tid, innermost(status.NSPID, tid)}
		t.inside[tid] = one.inside
		p.threads = append(p.threads, one)
	}
	return p, nil
}

// innermost is the number in the process's own pid namespace.
func innermost(numbers []int, otherwise int) int {
	if len(numbers) == 0 {
		return otherwise
	}
	return numbers[len(numbers)-1]
}

// number is what a process outside is called in a fact.
func (t *taker) number(pid int) string {
	switch n, ours := t.inside[pid]; {
	case ours:
		return strconv.Itoa(n)
	case pid == 0:
		return "none"
	}
	return "outside"
}

// text reads a small file of /proc as it is, without the last newline.
func text(path string) (string, error) {
	data, err := os.ReadFile(path)
	return strings.TrimSuffix(string(data), "\n"), err
}

// file adds the content of a file, under a key. That there is none is no fact:
// other kernels have it.
func (t *taker) file(key, path string) {
	value, err := text(path)
	switch {
	case err == nil:
		t.put(key, value)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH):
		t.cannot(key, err)
	}
}

// link adds where a link leads.
func (t *taker) link(key, path string) {
	target, err := os.Readlink(path)
	switch {
	case err == nil:
		t.put(key, target)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH):
		t.cannot(key, err)
	}
}

// reason is an error without the paths, which tell of this life's numbers.
func reason(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
