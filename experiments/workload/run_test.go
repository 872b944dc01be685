package workload

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/checkpoint/criu"
	"crucible/container/testenv"
)

// TestCases runs every case with this kernel and CRIU: each passes, or is
// skipped for a lack that somebody else confirms.
func TestCases(t *testing.T) {
	o := options(t)
	cases := Cases()
	f, err := Probe(t.Context(), o.CRIU, cases)
	if err != nil {
		t.Fatal(err)
	}
	o.Features = f
	start, counts := time.Now(), map[Verdict]int{}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			r := Run(t.Context(), c, o)
			counts[r.Verdict]++
			t.Logf("%s in %.0f ms: checkpoint %.0f, frozen %.0f, restore %.0f. %s",
				r.Verdict, ms(r.Took), ms(r.Checkpoint), ms(r.Frozen), ms(r.Restore), r.Reason)
			nothingLeft(t, o)
			switch {
			case r.Verdict == Fail:
				t.Errorf("%s: %s (%s)", r.Step, r.Reason, r.Hint)
			case r.Verdict == Skip && !strings.HasPrefix(r.Reason, "known: "):
				feature, _, _ := strings.Cut(r.Reason, ":")
				testenv.Lacks(t, feature, otherProbe(t, o.CRIU, feature))
			}
		})
	}
	t.Logf("%d cases in %.1f s: %v", len(cases), time.Since(start).Seconds(), counts)
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// otherProbe asks for a feature in another way than Probe and the cases do.
func otherProbe(t *testing.T, found *criu.CRIU, feature string) func() (bool, error) {
	switch feature {
	case "freezer/v1", "freezer/v2":
		return func() (bool, error) {
			v2, err := hasV2Freezer()
			return v2 == (feature == "freezer/v2"), err
		}
	case "rights/cap_sys_resource":
		return func() (bool, error) {
			line, err := status(os.Getpid(), "CapEff")
			var set uint64
			_, err2 := fmt.Sscanf(line, "CapEff: %x", &set)
			return set&(1<<unix.CAP_SYS_RESOURCE) != 0, first(err, err2)
		}
	case "machine/huge page":
		return func() (bool, error) {
			line, err := lines("/proc/meminfo", "HugePages_Free")
			return len(strings.Fields(line)) == 2 && strings.Fields(line)[1] != "0", err
		}
	case "machine/two processors":
		return func() (bool, error) {
			text, err := os.ReadFile("/proc/cpuinfo")
			return bytes.Count(text, []byte("processor\t")) > 1, err
		}
	case "memory/soft-dirty", "criu/mem_dirty_track":
		return testenv.KernelOption("CONFIG_MEM_SOFT_DIRTY")
	case "memory/userfaultfd":
		return testenv.KernelOption("CONFIG_USERFAULTFD")
	}
	return func() (bool, error) { return false, fmt.Errorf("nobody else knows of %s", feature) }
}

// hasV2Freezer makes a cgroup: the root of the hierarchy has no freezer.
func hasV2Freezer() (bool, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, " - cgroup2 ") {
			group, err := os.MkdirTemp(fields[4], "crucible-test-")
			if err != nil {
				return false, err
			}
			_, missing := os.Stat(filepath.Join(group, "cgroup.freeze"))
			return missing == nil, os.Remove(group)
		}
	}
	return false, nil
}

// TestTimes: what a result tells of the time is what was measured around it.
func TestTimes(t *testing.T) {
	o := options(t)
	var phases []string
	around := map[string]time.Duration{}
	o.Around = func(phase string, f func() error) error {
		start := time.Now()
		err := f()
		phases = append(phases, phase)
		around[phase] += time.Since(start)
		return err
	}
	c, err := Find("twice")
	if err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), c, o)
	if r.Verdict != Pass || r.Reason != "" || r.Step != StepCheck {
		t.Fatalf("%+v", r)
	}
	if got, want := fmt.Sprint(phases), "[checkpoint restore checkpoint restore]"; got != want {
		t.Errorf("phases %s, want %s", got, want)
	}
	if r.Checkpoint < around["checkpoint"] || r.Restore < around["restore"] || r.Frozen <= 0 || r.Frozen > r.Checkpoint || r.Took < r.Checkpoint+r.Restore {
		t.Errorf("%+v, and around it %v", r, around)
	}
}

// TestInterrupted: a case that is cancelled fails, and leaves nothing.
func TestInterrupted(t *testing.T) {
	o := options(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Around = func(phase string, f func() error) error {
		if phase == "restore" {
			cancel()
		}
		return f()
	}
	c, err := Find("pipe")
	if err != nil {
		t.Fatal(err)
	}
	if r := Run(ctx, c, o); r.Verdict != Fail || r.Step != StepRestore || !strings.Contains(r.Reason, "canceled") {
		t.Errorf("%+v", r)
	}
	nothingLeft(t, o)
}
