package conformance

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crucible/container/testenv"
	"crucible/experiments/lab"
	"crucible/experiments/workload"
)

// A case costs the same in each run, whatever the host does besides and whatever
// other cases are asked; the plug-in changes nothing; and where the kernel does a
// percent more (it accounts for stalls, PSI), that is seen, and where.
func TestCounts(t *testing.T) {
	list := targets(t, []string{"debian:6.12"}, []string{"v2"})
	testenv.LeakCheck(t)
	o := options(t)
	plugin, err := lab.BuildPlugin(t.Context(), o.QEMU, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	run := func(plugin string, words []string, names ...string) *Answer {
		t.Helper()
		o := options(t, names...)
		o.Append, o.Count = words, &Count{Seed: 1, Rounds: 2, Plugin: plugin}
		r, err := Run(t.Context(), list, o)
		if err != nil {
			t.Fatal(err)
		}
		a := &r.Answers[0]
		if p := a.Find("pipe"); a.Fault != "" || p == nil || p.Verdict != workload.Pass || p.Counts == nil {
			t.Fatalf("%+v", a)
		}
		return a
	}
	among := run(plugin, nil, "eventfd", "pipe")
	stop := load()
	alone := run(plugin, nil, "pipe")
	stop()
	if diff := cmp.Diff(among.Find("pipe").Counts, alone.Find("pipe").Counts); diff != "" {
		t.Errorf("another run: %s", diff)
	}
	timed := run("", nil, "pipe").Find("pipe").Counts
	counted := alone.Find("pipe").Counts
	if diff := cmp.Diff(counted.Restore.Virtual, timed.Restore.Virtual); diff != "" || timed.Restore.Kernel != nil {
		t.Errorf("without the plug-in: %s", diff)
	}

	less := run(plugin, []string{"psi=0"}, "pipe")
	for _, d := range CompareCounts([]string{"pipe"}, less, alone) {
		found := false
		for _, f := range d.Functions {
			found = found || f.Name == "psi_group_change" && f.Before == 0 && f.After > 50e3
		}
		if !found || d.Changed < 0.2 || d.Changed > 4 {
			t.Errorf("PSI is not seen: %s", d)
		}
	}
	if text := among.Find("pipe").Line(); strings.Count(text, " M kernel instructions") != 2 {
		t.Error(text)
	}
}

// load keeps the processors busy.
func load() (stop func()) {
	var over atomic.Bool
	var wait sync.WaitGroup
	for range runtime.NumCPU() {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for !over.Load() {
			}
		}()
	}
	return func() { over.Store(true); wait.Wait() }
}
