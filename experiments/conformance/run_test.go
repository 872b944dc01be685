package conformance

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"crucible/container/testenv"
	"crucible/experiments/lab/archive"
	"crucible/experiments/workload"
)

// The short matrix: an old and a newer kernel, v2 alone and hybrid; v1 alone is
// rarer.
func TestMatrix(t *testing.T) {
	list := targets(t, []string{"debian:6.1", "debian:6.12"}, []string{"v2", "hybrid"})
	list = append(list, targets(t, []string{"debian:6.1"}, []string{"v1"})...)
	testenv.LeakCheck(t)
	o := options(t, "pid-namespace", "all-namespaces", "cgroup-limits", "freezer-v1", "freezer-v2", "threads", "memfd",
		"pipe", "tcp-established", "inotify", "root-changes", "lazy-pages")
	begun := 0
	o.Event = func(e Event) {
		if e.Begin != "" {
			begun++
		}
	}
	r, err := Run(t.Context(), list, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Answers {
		a := &r.Answers[i]
		if a.Fault != "" {
			t.Errorf("%s: %s", a.Summary(), a.Fault)
		}
		for _, name := range r.Cases {
			want := workload.Pass
			switch {
			// Where there is a v2 hierarchy, it freezes.
			case name == "freezer-v1" && a.Cgroup != "v1", name == "freezer-v2" && a.Cgroup == "v1":
				want = workload.Skip
			// Linux 6.1 cannot map the ids of a tmpfs, 6.3 can (kernel commit 7a80e5b8c6fa).
			case name == "all-namespaces" && strings.HasPrefix(a.Release, "6.1."):
				want = workload.Skip
			}
			if o := a.Find(name); o == nil || o.Verdict != want {
				t.Errorf("%s %s, %s: %+v", a.Release, a.Cgroup, name, o)
			}
		}
	}
	if begun != len(list)*len(o.Cases) || r.ExitCode() != Good {
		t.Errorf("%d cases begun, exit code %d", begun, r.ExitCode())
	}
}

// The newest kernel of the archive, whichever that is today, boots on both
// layouts and answers. What it answers is its own affair: it may break CRIU.
func TestNewest(t *testing.T) {
	targets(t, nil, nil) // skips where nothing can be booted
	store, err := archive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	name := "debian:6.12"
	if all, err := store.List(t.Context()); err == nil {
		for _, e := range all {
			if e.Kind == "kernel" {
				name = "debian:" + e.Version // the oldest come first
			}
		}
	}
	list := targets(t, []string{name}, []string{"v2", "hybrid"})
	testenv.LeakCheck(t)
	o := options(t, "pipe", "pid-namespace", "cgroup-limits")
	r, err := Run(t.Context(), list, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Answers {
		a := &r.Answers[i]
		t.Log(a.Summary())
		if a.Fault != "" || len(a.Outcomes) != len(o.Cases) {
			t.Errorf("%s: %s", a.Summary(), a.Fault)
		}
	}
}

// A kernel that panics fails the case in which it does, and the rest is asked
// of it all the same.
func TestPanic(t *testing.T) {
	list := targets(t, []string{"debian:6.12"}, []string{"v2"})
	testenv.LeakCheck(t)
	o := options(t, "pipe", "threads", "eventfd")
	o.program = filepath.Join(t.TempDir(), "planted")
	build := exec.Command("go", "build", "-o", o.program, "./testdata/planted")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, err := Run(t.Context(), list, o)
	if err != nil {
		t.Fatal(err)
	}
	a := &r.Answers[0]
	for name, want := range map[string]workload.Verdict{"pipe": workload.Pass, "threads": workload.Fail, "eventfd": workload.Pass} {
		if got := a.Find(name); got == nil || got.Verdict != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if o := a.Find("threads"); o == nil || !strings.Contains(o.Reason, "panicked") || len(o.Kernel) == 0 {
		t.Errorf("threads: %+v", o)
	}
	if r.ExitCode() != Bad {
		t.Errorf("exit code %d", r.ExitCode())
	}
}

// A guest that is not as it should be says nothing about its kernel.
func TestFault(t *testing.T) {
	list := targets(t, []string{"debian:6.12"}, []string{"v2"})
	o := options(t, "pipe")
	list[0].CRIU.Files, list[0].CRIU.Path = nil, "/absent/criu"
	r, err := Run(t.Context(), list, o)
	if err != nil {
		t.Fatal(err)
	}
	if a := r.Answers[0]; !strings.Contains(a.Fault, "/absent/criu") || r.ExitCode() != Untested {
		t.Errorf("fault %q, exit code %d", a.Fault, r.ExitCode())
	}
}

func TestInterrupted(t *testing.T) {
	list := targets(t, []string{"debian:6.12"}, []string{"v2"})
	testenv.LeakCheck(t)
	o := options(t, "pipe", "threads")
	ctx, cancel := context.WithCancel(t.Context())
	o.Event = func(e Event) {
		if e.Begin != "" {
			cancel()
		}
	}
	r, err := Run(ctx, list, o)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if r == nil || r.ExitCode() != Untested {
		t.Errorf("report %+v", r)
	}
}
