package cgroup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/proc"
	"crucible/container/testenv"
)

// patience is how long anything may take that has no event to wait for.
const patience = 30 * time.Second

func freeze(t *testing.T, g *cgroup.Group) time.Duration {
	t.Helper()
	took, err := g.Freeze(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || !frozen {
		t.Fatalf("frozen is %v, %v", frozen, err)
	}
	return took
}

func thaw(t *testing.T, g *cgroup.Group) {
	t.Helper()
	if err := g.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || frozen {
		t.Fatalf("frozen is %v, %v after the thaw", frozen, err)
	}
}

func TestFreezeAndThaw(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		t.Logf("froze an empty group in %v", freeze(t, g))
		thaw(t, g)
		j := start(t, g, "spin")
		took := freeze(t, g)
		t.Logf("froze a running task in %v", took)
		before, err := proc.Root.Stat(j.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		after, err := proc.Root.Stat(j.Process.Pid)
		if err != nil || after.UTicks+after.STicks != before.UTicks+before.STicks {
			t.Errorf("it ran while frozen: %d, then %d ticks: %v", before.UTicks, after.UTicks, err)
		}
		freeze(t, g) // again, which is nothing
		thaw(t, g)
		runsAgain(t, before)
	})
}

// runsAgain waits until a task has used a processor since it was looked at.
func runsAgain(t *testing.T, before proc.Stat) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		after, err := proc.Root.Stat(before.PID)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("it does not run after the thaw: %+v, %v", after, err)
		}
		if after.UTicks+after.STicks > before.UTicks+before.STicks {
			return
		}
	}
}

// A task in state D cannot be frozen: it is named, and the others run again.
func TestFreezeStuck(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		other := start(t, g, "spin")
		if err := start(t, g, "sleep").Process.Signal(unix.SIGSTOP); err != nil { // which is no obstacle
			t.Fatal(err)
		}
		j := hung(t, g)
		began := time.Now()
		_, err := g.Freeze(t.Context(), 120*time.Millisecond)
		var stuck *cgroup.StuckError
		if !errors.As(err, &stuck) {
			t.Fatalf("error is %v", err)
		}
		if took := time.Since(began); took < 120*time.Millisecond || took > patience {
			t.Errorf("gave up after %v, not 120 ms", took)
		}
		t.Log(err)
		// On a busy machine one may also be running still.
		waits := func(t cgroup.Task) bool { return t.State != "R" }
		if n := len(slices.DeleteFunc(slices.Clone(stuck.Tasks), func(t cgroup.Task) bool { return !waits(t) })); n != 1 {
			t.Errorf("%d tasks are named", n)
		}
		if len(stuck.Tasks) == 0 || stuck.Tasks[0].PID != j.Process.Pid || stuck.Tasks[0].State != "D" || stuck.Tasks[0].WaitChannel == "" {
			t.Errorf("it was pid %d: %+v", j.Process.Pid, stuck.Tasks)
		}
		if frozen, err := g.Frozen(); err != nil || frozen {
			t.Errorf("still frozen: %v, %v", frozen, err)
		}
		before, err := proc.Root.Stat(other.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		runsAgain(t, before)
	})
}

func TestFreezeCancelled(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		hung(t, g)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := g.Freeze(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		if frozen, err := g.Frozen(); err != nil || frozen {
			t.Errorf("still frozen: %v, %v", frozen, err)
		}
	})
}

// The parent of a vfork waits in state D, and counts as frozen all the same.
func TestFreezeVforkParent(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		start(t, g, "vfork")
		for pids, err := g.Pids(); len(pids) < 2; pids, err = g.Pids() {
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		freeze(t, g)
		thaw(t, g)
	})
}

func TestFreezeWhileForking(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, &specs.LinuxResources{Pids: limit(l, 200)})
		start(t, g, "fork")
		start(t, g, "fork")
		var longest time.Duration
		for range 30 {
			longest = max(longest, freeze(t, g))
			thaw(t, g)
		}
		t.Logf("30 times, the longest took %v", longest)
	})
}

func TestThawBelowFrozen(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		inner, err := l.Create(testenv.Name(t), nil) // for its freezer's directory above
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = inner.Remove(context.Background()) }()
		above := filepath.Dir(g.FreezerPath())
		set := func(freeze bool) {
			for file, values := range map[string][2]string{"freezer.state": {"THAWED", "FROZEN"}, "cgroup.freeze": {"0", "1"}} {
				value := values[0]
				if freeze {
					value = values[1]
				}
				if _, err := os.Stat(filepath.Join(above, file)); err == nil {
					if err := os.WriteFile(filepath.Join(above, file), []byte(value), 0); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		start(t, g, "sleep")
		set(true)
		defer set(false)
		for frozen, err := g.Frozen(); !frozen; frozen, err = g.Frozen() {
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		err = g.Thaw(t.Context())
		if err == nil || !strings.Contains(err.Error(), above+" above it is frozen") {
			t.Errorf("error is %v", err)
		}
	})
}

// Whoever freezes itself does not come back.
func TestNotOurselves(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		before, err := proc.Root.Cgroups(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Add(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		_, freezeErr := g.Freeze(t.Context(), 0)
		killErr := g.Kill(t.Context())
		for _, h := range l.Hierarchies { // back
			for _, c := range before {
				if h.Version == 2 && c.Hierarchy == 0 || h.Version == 1 && slices.Equal(h.Controllers, c.Controllers) {
					if err := os.WriteFile(filepath.Join(h.Mount, c.Path, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
						t.Error(err)
					}
				}
			}
		}
		for _, err := range []error{freezeErr, killErr} {
			if err == nil || !strings.Contains(err.Error(), "this very process") {
				t.Errorf("error is %v", err)
			}
		}
	})
}
