package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/checkpoint"
	"crucible/container"
	"crucible/restore"
)

// plantedCases fail, each at another step.
func plantedCases() []Case {
	return []Case{
		{Name: "planted-no-start", define: func(d *definition) { d.Cwd = "/nowhere" }, program: plain},
		{Name: "planted-not-set-up", program: func() (func() error, error) { return nil, errors.New("no luck") }},
		{Name: "planted-ends-early", program: func() (func() error, error) { os.Exit(9); return nil, nil }},
		{Name: "planted-lacks", program: func() (func() error, error) { return nil, lacks("wings", unix.ENOSYS) }},
		{Name: "planted-needs", Needs: []string{"criu/wings"}, program: plain},
		{Name: "planted-never-ready", program: func() (func() error, error) { pause(); return nil, nil }},
		{Name: "planted-refused", program: packetPipe},
		{Name: "planted-bad-image", program: plain, plot: badImage},
		{Name: "planted-dies", program: plain, plot: killedMeanwhile},
		{Name: "planted-differs", program: func() (func() error, error) {
			return func() error { return same("the answer", 41, 42) }, nil
		}},
		{Name: "planted-panics", program: func() (func() error, error) { return func() error { panic("oh") }, nil }},
		{Name: "planted-hangs", program: func() (func() error, error) { return func() error { pause(); return nil }, nil }},
		{Name: "planted-hangs-frozen", program: plain, plot: frozenForGood},
		{Name: "planted-known", program: func() (func() error, error) { return func() error { return errors.New("lost") }, nil },
			Known: &Known{StepCheck, "it is always lost"}},
		{Name: "planted-known-elsewhere", program: packetPipe, Known: &Known{StepCheck, "it is always lost"}},
	}
}

// badImage cuts the pages of an image short.
func badImage(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(s.image.CRIUDir(), "pages-*.img"))
	if err != nil || len(pages) == 0 {
		return fmt.Errorf("pages %v: %w", pages, err)
	}
	if err := errors.Join(os.Chmod(pages[0], 0o600), os.Truncate(pages[0], 4096)); err != nil {
		return err
	}
	return s.restore(ctx, restore.Options{})
}

func killedMeanwhile(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	s.r.Step = StepCheck
	if err := s.box.Kill(ctx, unix.SIGKILL, true); err != nil {
		return err
	}
	return s.end(ctx)
}

func frozenForGood(ctx context.Context, s *stage) error {
	s.r.Step = StepCheckpoint
	if _, err := s.box.Freeze(ctx, 10*time.Second); err != nil {
		return err
	}
	_, err := s.box.Wait(ctx)
	return err
}

// TestPlanted: a failure is found where it is, told in its words, and leaves
// nothing behind.
func TestPlanted(t *testing.T) {
	o := options(t)
	f, err := Probe(t.Context(), o.CRIU, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Lacks["criu/wings"] = "nobody has any"
	o.Features = f
	kept := []string{"image", "output.log"}
	for _, want := range []struct {
		name    string
		verdict Verdict
		step    Step
		reason  string
		timeout time.Duration
		kept    []string
	}{
		{"no-start", Fail, StepRun, "cd /nowhere: no such file or directory", 0, nil},
		{"not-set-up", Fail, StepReady, "no luck", 0, kept[1:]},
		{"ends-early", Fail, StepReady, "before it was ready: the program ended with status 9", 0, nil},
		{"lacks", Skip, StepReady, "wings: function not implemented", 0, nil},
		{"needs", Skip, StepRun, "criu/wings: nobody has any", 0, nil},
		{"never-ready", Fail, StepReady, "not done after 2s", 2 * time.Second, nil},
		{"refused", Fail, StepCheckpoint, "packet mode", 0, kept[1:]},
		{"bad-image", Fail, StepRestore, "pages-", 0, kept},
		{"dies", Fail, StepCheck, "ended by signal 9", 0, kept},
		{"differs", Fail, StepCheck, "the answer: 41, want 42", 0, kept},
		{"panics", Fail, StepCheck, "panic: oh", 0, kept},
		{"hangs", Fail, StepCheck, "not done after 2s", 2 * time.Second, kept},
		{"hangs-frozen", Fail, StepCheckpoint, "not done after 2s", 2 * time.Second, kept[1:]},
		{"known", Skip, StepCheck, "known: it is always lost", 0, nil},
		{"known-elsewhere", Fail, StepCheckpoint, "packet mode", 0, kept[1:]},
	} {
		t.Run(want.name, func(t *testing.T) {
			c, err := find(plantedCases(), "planted-"+want.name)
			if err != nil {
				t.Fatal(err)
			}
			o := o
			o.Timeout = want.timeout
			r := Run(t.Context(), c, o)
			if r.Case != c.Name || r.Verdict != want.verdict || r.Step != want.step || !strings.Contains(r.Reason, want.reason) {
				t.Errorf("%+v, want %s at %s with %q", r, want.verdict, want.step, want.reason)
			}
			if r.Took <= 0 || r.Took > 10*time.Second {
				t.Errorf("took %v", r.Took)
			}
			nothingLeft(t, o)
			all := listed(t, filepath.Join(o.Dir, c.Name))
			for _, file := range want.kept {
				if !slices.ContainsFunc(all, func(path string) bool { return strings.Contains(path, file) }) {
					t.Errorf("%s is not kept, but %v", file, all)
				}
			}
			if want.verdict != Fail && len(all) > 0 {
				t.Errorf("kept: %v", all)
			}
		})
	}
}

// nothingLeft: no container, image, log or working directory of a case is there
// when Run returns.
func nothingLeft(t *testing.T, o Options) {
	t.Helper()
	for _, path := range listed(t, string(o.Root)) {
		if strings.Contains(path, o.prefix+"-") || strings.Contains(path, "workload") {
			t.Errorf("left: %s", path)
		}
	}
}

func listed(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestSpoiled: a case fails when what it asks about is changed after the restore.
func TestSpoiled(t *testing.T) {
	o := options(t)
	f, err := Probe(t.Context(), o.CRIU, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.Features = f
	write := func(file, text string) func(*container.Container) error {
		return func(c *container.Container) error {
			return os.WriteFile(fmt.Sprintf("/proc/%d/%s", c.State.Init.Pid, file), []byte(text), 0o644)
		}
	}
	for _, test := range []struct {
		name   string
		spoil  func(*container.Container) error
		reason string
	}{
		{"root-changes", write("root/srv/lower/changed", "otherwise"), "changed"},
		{"tmpfs", write("root/scratch/tree/more", "more"), "more"},
		{"dev-shm", write("root/dev/shm/named", "otherwise"), "mapping"},
		{"oom-score", write("oom_score_adj", "400"), "oom_score_adj: 400"},
		{"nice", func(c *container.Container) error { return unix.Setpriority(unix.PRIO_PROCESS, c.State.Init.Pid, 7) }, "niceness: 7, want 5"},
		{"rlimits", func(c *container.Container) error {
			return unix.Prlimit(c.State.Init.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 300}, nil)
		}, "limit 7 100 300"},
		{"zombie", func(c *container.Container) error { return errors.New("spoilt") }, "spoilt"},
		{"process-tree", killChild, "state Z"},
		{"cgroup-limits", func(c *container.Container) error {
			r, err := container.Resources(container.RunOptions{Pids: 50})
			if err != nil {
				return err
			}
			return c.SetLimits(t.Context(), r)
		}, "limits map"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Find(test.name)
			if err != nil {
				t.Fatal(err)
			}
			o := o
			o.spoil = test.spoil
			if r := Run(t.Context(), c, o); r.Verdict != Fail || r.Step != StepCheck || !strings.Contains(r.Reason, test.reason) {
				t.Errorf("%+v, want it to fail at check with %q", r, test.reason)
			}
			nothingLeft(t, o)
		})
	}
}

// killChild ends the first process's first child.
func killChild(c *container.Container) error {
	group, err := c.Group()
	if err != nil {
		return err
	}
	pids, err := group.Pids()
	if err != nil || len(pids) < 2 {
		return fmt.Errorf("processes %v: %w", pids, err)
	}
	slices.Sort(pids)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", c.State.Init.Pid))
	if err != nil {
		return err
	}
	var pid int
	if _, err := fmt.Sscan(string(children), &pid); err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	return readable(fd)
}
