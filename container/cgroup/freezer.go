package cgroup

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
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDeadline is how long Freeze tries when it is not told. A group that
// can be frozen is so within a millisecond; what takes longer waits for a disk
// or a server, and then often for seconds.
const DefaultDeadline = 2 * time.Second

// A freezer is the file interface of one version.
type freezer struct {
	dir               string
	control           string // what is written to
	freeze, thaw      string // what is written
	state             string // what tells how far it is
	frozen, notFrozen string // what it then holds
}

func (l leaf) freezer() freezer {
	if l.Version == 2 {
		return freezer{l.dir, "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1\n", "frozen 0\n"}
	}
	return freezer{l.dir, "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN\n", "THAWED\n"}
}

// freezer is that of the group, or an error where a crash or somebody else has
// taken the directory away.
func (g *Group) freezer() (freezer, error) {
	if !g.leaves[0].has("freezer") {
		return freezer{}, fmt.Errorf("no directory %s/%s in the hierarchy of the freezer: %w", Top, g.name, fs.ErrNotExist)
	}
	return g.leaves[0].freezer(), nil
}

func (f freezer) set(value string) error {
	err := put(filepath.Join(f.dir, f.control), value)
	if errors.Is(err, fs.ErrNotExist) && unix.Access(f.dir, unix.F_OK) == nil {
		return fmt.Errorf("%w (cgroup v2 can freeze from Linux 5.2 on)", err)
	}
	return err
}

// reader reads the state again and again from one descriptor: the kernel makes
// the text anew for each pread(2) at 0.
type reader struct {
	fd  int
	buf [128]byte
}

func (r *reader) holds(word string) (bool, error) {
	for {
		n, err := unix.Pread(r.fd, r.buf[:], 0)
		switch err {
		case nil:
			return strings.Contains(string(r.buf[:n]), word), nil
		case unix.EINTR:
		case unix.ENODEV:
			return false, unix.ENOENT // the group has been removed
		default:
			return false, err
		}
	}
}

// FreezerPath is the directory that CRIU wants to know as freeze_cgroup.
func (g *Group) FreezerPath() string { return g.leaves[0].dir }

// Frozen says whether every task in the group stands still. A group that is on
// the way there does not count.
func (g *Group) Frozen() (bool, error) {
	f, err := g.freezer()
	if err == nil {
		var text string
		if text, err = get(filepath.Join(f.dir, f.state)); err == nil {
			return strings.Contains(text+"\n", f.frozen), nil
		}
	}
	return false, fmt.Errorf("ask whether cgroup %s is frozen: %w", g.name, err)
}

// Freeze stops every task of the group and of those nested in it, and returns
// how long that took from the request to the moment it was seen. A deadline of
// 0 is DefaultDeadline. When it cannot be done in time, or ctx ends, the group
// is thawed again, and the error is a *StuckError if it can be told who it was.
//
// It asks for the state in a tight loop. Events would be later: the kernel
// holds back all but the first change of cgroup.events for 10 ms
// (CGROUP_FILE_NOTIFY_MIN_INTV in kernel/cgroup/cgroup.c), and v1 has none.
//
// Measured on Linux 6.18: 30 µs on v2 and 110 to 140 µs on v1 for sleeping
// tasks, of which all but 3 µs is the write itself: the first frozen group of
// the host switches a static key, which rewrites kernel code
// (kernel/cgroup/legacy_freezer.c, freezer_active).
func (g *Group) Freeze(ctx context.Context, deadline time.Duration) (time.Duration, error) {
	fail := func(err error) (time.Duration, error) {
		return 0, fmt.Errorf("freeze cgroup %s: %w", g.name, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if err := g.notOurs(); err != nil {
		return fail(err)
	}
	f, err := g.freezer()
	if err != nil {
		return fail(err)
	}
	fd, err := open(filepath.Join(f.dir, f.state), unix.O_RDONLY)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	if deadline <= 0 {
		deadline = DefaultDeadline
	}
	began := time.Now()
	r := &reader{fd: fd}
	done, err := g.try(ctx, f, r, began.Add(deadline))
	took := time.Since(began)
	if done && err == nil {
		return took, nil
	}
	running := g.unfrozen() // before the thaw changes what they are
	thawed := g.Thaw(context.WithoutCancel(ctx))
	if err == nil {
		err = g.stuck(took, running)
	}
	return fail(errors.Join(err, thawed))
}

// BeginFreeze tells the group to freeze and does not wait: what a tracer holds
// freezes when it is let go, before it executes an instruction of its own.
// [Group.Freeze] then waits for it, and [Group.Thaw] takes it back.
func (g *Group) BeginFreeze() error {
	err := g.notOurs()
	var f freezer
	if err == nil {
		f, err = g.freezer()
	}
	if err == nil {
		err = f.set(f.freeze)
	}
	if err != nil {
		return fmt.Errorf("freeze cgroup %s: %w", g.name, err)
	}
	return nil
}

// Release moves a process out of the group as far as the freezer goes, to where
// the caller is. It is slow: see [Group.Add].
func (g *Group) Release(pid int) error {
	l := g.leaves[0]
	own, err := l.own(os.Getpid())
	if err == nil {
		err = put(filepath.Join(own, "cgroup.procs"), strconv.Itoa(pid))
	}
	if err != nil {
		return fmt.Errorf("take pid %d out of cgroup %s: %w", pid, g.name, err)
	}
	return nil
}

// notOurs is an error if the calling process is in the group itself: it would
// freeze, and then nobody thaws.
func (g *Group) notOurs() error {
	l := g.leaves[0]
	own, err := l.own(os.Getpid())
	if err == nil && (own == l.dir || strings.HasPrefix(own, l.dir+"/")) {
		return errOurs()
	}
	return nil
}

func errOurs() error { return fmt.Errorf("this very process, pid %d, is in it", os.Getpid()) }

// restless is after how long without success to think about it.
const restless = 50 * time.Millisecond

// try asks for the freeze until it is so.
func (g *Group) try(ctx context.Context, f freezer, r *reader, deadline time.Time) (bool, error) {
	for {
		if err := f.set(f.freeze); err != nil {
			return false, err
		}
		until := time.Now().Add(restless)
		if until.After(deadline) {
			until = deadline
		}
		done, err := poll(ctx, until, func() (bool, error) { return r.holds(f.frozen) })
		if done || err != nil || !time.Now().Before(deadline) {
			return done, err
		}
		// A task that waits for a CPU will freeze as soon as it gets one; on a
		// busy host that takes its time. To ask again does no harm: v1 of older
		// kernels can miss what was forked meanwhile (opencontainers/cgroups,
		// fs/freezer.go).
		if slices.ContainsFunc(g.unfrozen(), func(t Task) bool { return t.State == "R" }) {
			continue
		}
		// Else one may wait, beyond the freezer's reach, for one that is frozen
		// already, such as a file server in the same container. Let them go for
		// a moment: next time they may be met in another order.
		if err := f.set(f.thaw); err != nil {
			return false, err
		}
		pause(time.Millisecond)
	}
}

// poll calls done until it says so, fails, the time is up, or ctx ends. It
// yields at first, since what it waits for mostly takes some ten microseconds
// and perhaps this very CPU, then sleeps for longer and longer, at most 200 µs.
func poll(ctx context.Context, until time.Time, done func() (bool, error)) (bool, error) {
	const longest = 200 * time.Microsecond
	wait := 5 * time.Microsecond
	for i := 0; ; i++ {
		ok, err := done()
		if ok || err != nil {
			return ok, err
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if !time.Now().Before(until) {
			return false, nil
		}
		if i < 20 {
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			continue
		}
		pause(wait)
		wait = min(wait*3/2, longest)
	}
}

// pause is nanosleep(2) itself: time.Sleep goes by way of the scheduler and its
// epoll, which doubles the shortest of these. Both add the thread's timer slack
// of 50 µs (prctl(2), PR_SET_TIMERSLACK).
func pause(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil)
}

// Thaw lets every task of the group run again. Groups nested in it that were
// frozen by themselves stay so; one above it that is frozen is an error.
func (g *Group) Thaw(ctx context.Context) error {
	err := g.thaw(ctx)
	if err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", g.name, err)
	}
	return nil
}

func (g *Group) thaw(ctx context.Context) error {
	f, err := g.freezer()
	if err != nil {
		return err
	}
	if err := f.set(f.thaw); err != nil {
		return err
	}
	fd, err := open(filepath.Join(f.dir, f.state), unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r := &reader{fd: fd}
	until := time.Now().Add(DefaultDeadline)
	ok, err := poll(ctx, until, func() (bool, error) {
		thawed, err := r.holds(f.notFrozen)
		if !thawed && err == nil {
			err = g.frozenAbove()
		}
		return thawed, err
	})
	if !ok && err == nil {
		err = fmt.Errorf("%s still does not say %q after %v", f.state, strings.TrimSpace(f.notFrozen), DefaultDeadline)
	}
	return err
}

// frozenAbove is an error if what holds the group is a freeze of crucible/ or
// one further up, as far as we see.
func (g *Group) frozenAbove() error {
	l := g.leaves[0]
	file, frozen := "freezer.self_freezing", "1"
	if l.Version == 2 {
		file = "cgroup.freeze"
	}
	for dir := filepath.Dir(l.dir); len(dir) >= len(l.Mount) && dir != "/"; dir = filepath.Dir(dir) {
		if text, err := get(filepath.Join(dir, file)); err == nil && text == frozen {
			return fmt.Errorf("%s above it is frozen", dir)
		}
	}
	return nil
}
