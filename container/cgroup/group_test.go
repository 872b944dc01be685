package cgroup_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/testenv"
)

// each runs a test on the layout of this machine, and on v2 where that is
// mounted beside it.
func each(t *testing.T, test func(t *testing.T, l cgroup.Layout)) {
	testenv.Root(t)
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, l cgroup.Layout) {
		testenv.LeakCheck(t)
		test(t, l)
	}
	t.Run(l.Mode(), func(t *testing.T) { run(t, l) })
	for _, h := range l.Hierarchies {
		if l.Mode() == "hybrid" && h.Version == 2 {
			t.Run("v2 alone", func(t *testing.T) { run(t, cgroup.Layout{Hierarchies: []cgroup.Hierarchy{h}}) })
		}
	}
}

func create(t testing.TB, l cgroup.Layout, r *specs.LinuxResources) *cgroup.Group {
	t.Helper()
	g, err := l.Create(testenv.Name(t), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(g.Kill(ctx), g.Remove(ctx)); err != nil {
			t.Error(err)
		}
		_ = l.Sweep()
	})
	return g
}

// inside checks that a process is in the group in each hierarchy.
func inside(t *testing.T, g *cgroup.Group, pid int) {
	t.Helper()
	for controller, dir := range g.Paths() {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil || !slices.Contains(strings.Fields(string(data)), strconv.Itoa(pid)) {
			t.Errorf("pid %d is not in %s (%q): %v", pid, dir, controller, err)
		}
	}
}

func TestStart(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before, err := os.ReadFile("/proc/thread-self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		g := create(t, l, &specs.LinuxResources{Pids: limit(l, 1000)})
		j := start(t, g, "sleep")
		inside(t, g, j.Process.Pid)
		if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{j.Process.Pid}) {
			t.Errorf("Pids = %v, %v", pids, err)
		}
		after, err := os.ReadFile("/proc/thread-self/cgroup")
		if err != nil || string(after) != string(before) {
			t.Errorf("the thread did not come back: it is in\n%swas in\n%s%v", after, before, err)
		}
		inside(t, g, startOn(t, g, "sleep", false).Process.Pid)
		// One that cannot be started leaves nothing behind.
		err = g.Start(func(*os.File) (int, error) { return 0, unix.EXDEV })
		if err != unix.EXDEV {
			t.Errorf("the error of clone came back as %v", err)
		}
	})
}

// limit is pids.limit, on layouts that have the controller.
func limit(l cgroup.Layout, n int64) *specs.LinuxPids {
	for _, h := range l.Hierarchies {
		if slices.Contains(h.Controllers, "pids") {
			return &specs.LinuxPids{Limit: &n}
		}
	}
	return nil
}

func TestStartTheOnlyTask(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	g := create(t, l, &specs.LinuxResources{Pids: limit(l, 1)})
	cmd := exec.Command("sleep", "100") // one thread, unlike a job
	err = g.Start(func(group *os.File) (int, error) {
		if group != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
		}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	inside(t, g, cmd.Process.Pid)
}

// What enters the part that counts tasks last is not counted before, and its
// other threads are not at all.
func TestSplitTasks(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	g := create(t, l, &specs.LinuxResources{Pids: limit(l, 1)})
	rest, tasks, err := g.SplitTasks()
	if err != nil {
		t.Fatal(err)
	}
	if tasks == nil {
		if rest != g {
			t.Error("there is nothing to enter last, and yet something was left out")
		}
		return
	}
	defer tasks.Close()
	j := start(t, rest, "sleep") // a Go program
	inside(t, rest, j.Process.Pid)
	pids := filepath.Join(g.Paths()["pids"], "pids.current")
	if now, err := os.ReadFile(pids); err != nil || string(now) != "0\n" {
		t.Errorf("counted before: %s, %v", now, err)
	}
	if _, err := fmt.Fprint(tasks, j.Process.Pid); err != nil {
		t.Fatal(err)
	}
	inside(t, g, j.Process.Pid)
	if now, err := os.ReadFile(pids); err != nil || string(now) != "1\n" {
		t.Errorf("counted afterwards: %s, %v", now, err)
	}
}

func TestAdd(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		cmd := exec.Command("sleep", "100")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		if err := g.Add(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		inside(t, g, cmd.Process.Pid)
		if err := g.Add(1 << 29); !errors.Is(err, unix.ESRCH) {
			t.Errorf("Add of no process: %v", err)
		}
	})
}

func TestKillForkBomb(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		small := limit(l, 300)
		if small == nil {
			return // nothing would keep the bomb small
		}
		g := create(t, l, &specs.LinuxResources{Pids: small})
		start(t, g, "bomb")
		for pids, err := g.Pids(); len(pids) < 200; pids, err = g.Pids() {
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		took := freeze(t, g)
		thaw(t, g)
		began := time.Now()
		if err := g.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("froze in %v, killed in %v", took, time.Since(began))
		if pids, err := g.Pids(); err != nil || len(pids) != 0 {
			t.Errorf("left: %v, %v", pids, err)
		}
	})
}

func TestKillFrozen(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		j := start(t, g, "sleep")
		nested := filepath.Join(g.FreezerPath(), "inner")
		if err := os.Mkdir(nested, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(nested, "cgroup.procs"), []byte(strconv.Itoa(j.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{j.Process.Pid}) {
			t.Errorf("Pids with a nested group = %v, %v", pids, err)
		}
		for file, value := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
			if _, err := os.Stat(filepath.Join(nested, file)); err == nil {
				if err := os.WriteFile(filepath.Join(nested, file), []byte(value), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		freeze(t, g)
		thaw(t, g) // the nested group stays frozen, which is not ours to say
		freeze(t, g)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := g.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		if err := j.Wait(); err == nil || j.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
			t.Errorf("it ended with %v", err)
		}
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(nested); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the nested group is still there: %v", err)
		}
	})
}

// What remains when somebody has removed the directories.
func TestRemovedUnderUs(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		for _, dir := range g.Paths() {
			if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
				t.Fatal(err)
			}
		}
		_, err := g.Freeze(t.Context(), 0)
		_, err2 := g.Frozen()
		_, err3 := g.Stats()
		_, err4 := g.Pids()
		for i, err := range []error{err, err2, err3, err4, g.Thaw(t.Context()), g.Add(os.Getpid())} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%d: %v is not fs.ErrNotExist", i, err)
			}
		}
		if err := errors.Join(g.Kill(t.Context()), g.Remove(t.Context())); err != nil {
			t.Errorf("Kill and Remove of nothing: %v", err)
		}
		if _, err := l.Open(g.Name()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open of nothing: %v", err)
		}
	})
}

func TestCreateAndOpen(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		again, err := l.Create(g.Name(), nil) // empty: as a crash leaves it
		if err != nil {
			t.Fatal(err)
		}
		j := start(t, again, "sleep")
		if _, err := l.Create(g.Name(), nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create of one with a process: %v", err)
		}
		inside(t, again, j.Process.Pid)
		opened, err := l.Open(g.Name())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := opened.Paths(), g.Paths(); len(got) != len(want) || opened.FreezerPath() != g.FreezerPath() {
			t.Errorf("opened %v, freezer %s; created %v, freezer %s", got, opened.FreezerPath(), want, g.FreezerPath())
		}
		freeze(t, opened)
		err = opened.Remove(t.Context())
		if err == nil || !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d (", j.Process.Pid)) {
			t.Errorf("Remove with a process: %v", err)
		}
		for _, bad := range []string{"", "..", "a/b", "-x"} {
			if _, err := l.Create(bad, nil); err == nil {
				t.Errorf("Create(%q): no error", bad)
			}
			if _, err := l.Open(bad); err == nil {
				t.Errorf("Open(%q): no error", bad)
			}
		}
	})
}

// Nothing is left where a limit cannot be had.
func TestCreateUndone(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		name, negative := testenv.Name(t), int64(-5)
		_, err := l.Create(name, &specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx": {HcaHandles: new(uint32)}}})
		// Neither the controller, nor where that is there the device.
		if err == nil || !strings.Contains(err.Error(), "linux.resources.rdma.mlx: no rdma controller") && !errors.Is(err, unix.ENODEV) {
			t.Errorf("error is %v", err)
		}
		if l.Mode() != "v2" {
			_, err = l.Create(name, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &negative}})
			if err == nil || !strings.Contains(err.Error(), "linux.resources.memory.limit: ") {
				t.Errorf("error is %v", err)
			}
		}
		if g, err := l.Open(name); err == nil {
			t.Errorf("it left %v", g.Paths())
		}
		_ = l.Sweep()
	})
}
