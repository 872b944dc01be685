package preflight

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// Inspect looks through a running container. It only reads: nothing is opened
// that would change by it, nothing is traced or stopped.
//
// What a running container holds changes while it is read. What would stand in
// the way is therefore believed only when it is found again and again.
func Inspect(ctx context.Context, s Subject) (Report, error) {
	l, err := take(ctx, s)
	if err != nil {
		return Report{}, err
	}
	hits, err := confirm(ctx, s, l.hits)
	if err != nil {
		return Report{}, err
	}
	slices.SortStableFunc(hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(b.weight(), a.weight()), cmp.Compare(a.Pid, b.Pid), cmp.Compare(a.FD, b.FD))
	})
	r := Report{Needs: l.needs, Findings: make([]Finding, 0, len(hits))}
	for _, h := range hits {
		r.Findings = append(r.Findings, h.Finding)
	}
	return r, nil
}

// confirm looks again, and leaves out what is there no more. Once is enough
// for a remark. Before it is said that nothing can be done it is waited for:
// a connection in a queue stands in the way only until the program takes it
// out, and a process that is ending shows half of what it held. There is no
// event to wait for.
func confirm(ctx context.Context, s Subject, hits []hit) ([]hit, error) {
	doubtful := func(h hit) bool { return h.Blocks || h.Lost || h.Kind == "uninterruptible" }
	blocking := func(h hit) bool { return h.Blocks }
	more := slices.ContainsFunc(hits, doubtful)
	for wait := time.Duration(0); more; wait = 2*wait + 5*time.Millisecond {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
		// Those who were born meanwhile may hold what seems to be outside.
		s.Pids = withDescendants(s)
		again, err := take(ctx, s)
		if err != nil {
			return nil, err
		}
		hits = slices.DeleteFunc(hits, func(h hit) bool { return doubtful(h) && !again.found(h) })
		more = wait < patience && slices.ContainsFunc(hits, blocking)
	}
	return hits, nil
}

// patience is the longest of the waits; all together are about twice as long.
const patience = 30 * time.Millisecond

func withDescendants(s Subject) []int {
	tree, err := proc.Root.Tree(s.Init)
	if err != nil {
		return s.Pids
	}
	pids := slices.Clone(s.Pids)
	for _, p := range tree.All() {
		pids = append(pids, p.PID)
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// hit is a finding with what tells it from another use of the same number.
type hit struct {
	Finding
	ino uint64
}

func (h hit) weight() int {
	switch {
	case h.Blocks:
		return 2
	case h.Lost:
		return 1
	}
	return 0
}

// look is what one walk through a container has shown.
type look struct {
	s      Subject
	r      *reader
	root   int // the container's root directory
	init   *process
	procs  []*process // all but zombies come with files
	byPid  map[int]*process
	mounts *mountTable
	shmem  func() uint64 // the device of memfds and the like

	stranger map[int]bool // processes that do not descend from init
	sockets  sockets
	needs    Options
	hits     []hit
}

func (l *look) found(h hit) bool {
	return slices.ContainsFunc(l.hits, func(o hit) bool {
		return o.Kind == h.Kind && o.Pid == h.Pid && o.FD == h.FD && o.Path == h.Path && o.ino == h.ino && o.weight() == h.weight()
	})
}

func take(ctx context.Context, s Subject) (*look, error) {
	l := &look{s: s, r: newReader(), byPid: map[int]*process{}, stranger: map[int]bool{}, needs: permits(s), shmem: sync.OnceValue(shmemDevice)}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", s.Init), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("inspect process %d: %w", s.Init, asGone(err))
	}
	defer unix.Close(root)
	l.root = root
	if err := l.readProcesses(ctx); err != nil {
		return nil, err
	}
	if l.init = l.byPid[s.Init]; l.init == nil {
		return nil, fmt.Errorf("inspect process %d: %w", s.Init, fs.ErrNotExist)
	}
	l.judgeStrangers()
	if !l.judgeRoot() {
		return l, nil
	}
	if err := l.readMounts(); err != nil {
		return nil, err
	}
	l.judgeProcesses()
	for _, p := range l.procs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !l.stranger[p.pid] {
			l.judgeFiles(p)
		}
	}
	l.judgeMounts()
	if err := l.judgeSockets(); err != nil {
		return nil, err
	}
	l.judgePolls()
	return l, l.judgeWatches(ctx)
}

// permits is what the user chose and what else only allows: it costs nothing
// when there is nothing for it, and until the container is frozen it may take a
// lock or a connection that it does not have now.
func permits(s Subject) Options {
	o := s.Given
	o.FileLocks, o.LinkRemap = true, true
	o.IrmapPaths = slices.Clone(o.IrmapPaths)
	if s.NetNS != nil {
		o.SkipInFlight, o.TCPEstablished = true, !o.TCPClose
	}
	return o
}

// asGone gives the error of a process that ends while its files are read the
// name that errors.Is knows.
func asGone(err error) error {
	if gone(err) {
		return fs.ErrNotExist
	}
	return err
}

// readProcesses reads all processes, on all processors.
func (l *look) readProcesses(ctx context.Context) error {
	pids := l.s.Pids
	if !slices.Contains(pids, l.s.Init) {
		pids = append([]int{l.s.Init}, pids...)
	}
	shared := &shared{seen: map[fileName]bool{}}
	read := make([]*process, len(pids))
	var next atomic.Int64
	work := func(r *reader) error {
		for {
			n := int(next.Add(1)) - 1
			if n >= len(pids) || ctx.Err() != nil {
				return ctx.Err()
			}
			var err error
			if read[n], err = r.readProcess(pids[n], shared); err != nil {
				return fmt.Errorf("inspect process %d: %w", pids[n], err)
			}
		}
	}
	// One process takes less time than it takes to wake up a thread.
	others := min(runtime.GOMAXPROCS(0), len(pids)/2) - 1
	failed := make(chan error, max(others, 0))
	for range others {
		go func() { failed <- work(newReader()) }()
	}
	err := work(l.r)
	for range others {
		if e := <-failed; err == nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	for _, p := range read {
		if p != nil {
			l.procs = append(l.procs, p)
			l.byPid[p.pid] = p
		}
	}
	return nil
}

// readMounts reads the mount table, and those of nested mount namespaces.
func (l *look) readMounts() error {
	own, err := l.mountInfo(l.s.Init)
	if err != nil {
		return err
	}
	l.mounts = newMountTable(own, l.s.External)
	for _, p := range l.procs {
		// Each process shows what is below its own root.
		if ns := p.spaces[spaceMnt]; ns == 0 || ns == l.init.spaces[spaceMnt] || l.stranger[p.pid] {
			continue
		}
		if infos, err := l.mountInfo(p.pid); err == nil {
			l.mounts.addNested(infos)
		}
	}
	return nil
}

func (l *look) mountInfo(pid int) ([]*mountinfo.Info, error) {
	dir, err := openProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("inspect process %d: %w", pid, asGone(err))
	}
	defer unix.Close(dir)
	infos, err := file(l.r, dir, "mountinfo", parseMountInfo)
	if err != nil {
		return nil, fmt.Errorf("read mounts of process %d: %w", pid, asGone(err))
	}
	return infos, nil
}

// add notes a finding about a process.
func (l *look) add(p *process, d *descriptor, f Finding) {
	f.FD = -1
	h := hit{Finding: f}
	if p != nil {
		h.Pid, h.Command = p.pid, p.status.Name
	}
	if d != nil {
		h.FD, h.ino = d.fd, d.ino
		if h.Path == "" {
			h.Path = d.link
		}
	}
	if !l.found(h) { // a program is open as such, and mapped
		l.hits = append(l.hits, h)
	}
}

// shmemDevice is the device of the kernel's own tmpfs, where memfds, shared
// anonymous memory and SysV segments live.
func shmemDevice() uint64 {
	fd, err := unix.MemfdCreate("crucible", unix.MFD_CLOEXEC)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	i, err := statx(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return 0
	}
	return i.dev
}
