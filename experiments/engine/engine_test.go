package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"crucible/checkpoint/criu"
	"crucible/container/testenv"
	"crucible/experiments/plan"
)

var flags = plan.Flags{"run": {"net", "memory"}, "checkpoint": {"leave-running", "verify", "criu-option"}, "restore": {"count", "lazy", "name"}, "stop": {"grace"}}

// play runs an experiment for real.
func play(t *testing.T, ctx context.Context, source string, change func(*Options)) (*Results, error) {
	t.Helper()
	testenv.Root(t)
	testenv.LeakCheck(t)
	p, err := plan.Parse("test.yaml", []byte(source), flags)
	if err != nil {
		t.Fatal(err)
	}
	found, err := criu.Find("")
	if err != nil {
		testenv.Skip(t, "%v", err)
	}
	o := Options{Plan: p, Dir: filepath.Join(t.TempDir(), "results"), Crucible: testenv.Binary(t), CRIU: found.Path, Version: "test", Flags: flags,
		disturbed: func(*Record) bool { return false }} // whatever else the machine does
	if change != nil {
		change(&o)
	}
	return Run(ctx, o)
}

const cycle = `
question: Does it come back?
workload:
  builtin: {processes: 2, threads: 2, descriptors: 5, mappings: 5, memory: "${memory}", timers: 1, files: 1, port: 7100}
  client: tcp
container: {net: bridge}
factors:
  memory: [1MiB, 4MiB]
steps:
  - run
  - wait: 10ms
  - checkpoint
  - restore
  - check
  - repeat:
      times: 2
      steps:
        - checkpoint: {leave-running: true, verify: true}
        - check
  - freeze
  - expect: {status: frozen}
  - thaw
  - exec: [/bin/true]
  - clone: {count: 2}
repetitions: {runs: 1, warm-up: 1}
`

// A whole experiment: all verbs, all measures, nothing left.
func TestRun(t *testing.T) {
	r, err := play(t, t.Context(), cycle, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Records) != 4 {
		t.Fatalf("%d runs", len(r.Records))
	}
	kinds := map[Kind]int{}
	for _, one := range r.Records {
		kinds[one.Kind]++
		if one.Failure != nil || len(one.Leaks) > 0 {
			t.Fatalf("run %d: %v, leaks %v", one.Number, one.Failure, one.Leaks)
		}
		for _, m := range plan.Measures() {
			v, ok := one.Measures[m.Name]
			if m.Name == "machine-memory" {
				continue // whatever else the machine does
			}
			if zero := m.Name == "failed" || m.Name == "leaks" || m.Name == "differences"; !ok || zero != (v == 0) {
				t.Errorf("run %d: %s: %v, %v; differs: %q", one.Number, m.Name, v, ok, one.Differs)
			}
		}
		if one.Measures["phase:checkpoint/freeze"] <= 0 || one.Measures["frozen"] >= one.Measures["checkpoint"] {
			t.Errorf("run %d: %v", one.Number, one.Measures)
		}
	}
	if kinds[WarmUp] != 2 || kinds[Counted] != 2 {
		t.Error(kinds)
	}
	again, err := Load(r.Dir, flags)
	if err != nil || len(again.Records) != 4 || again.Provenance.Kernel == "" || again.Provenance.CRIU == "" {
		t.Errorf("%+v, %v", again, err)
	}
}

// A run that fails is a result: with its step, its reason, its logs, and the
// others go on.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct{ program, steps, step, want string }{
		"program missing":  {"[/no/such/program]", "[run]", "run", "there is no such program in the container"},
		"never ready":      {"[sleep, \"60\"]", "[run]", "run", "the workload does not get ready: not done after 1s"},
		"ends":             {"[\"true\"]", "[run]", "run", "it has ended"},
		"cannot dump":      {"[sh, -c, \"echo up; sleep 60\"]", "[run, {checkpoint: {criu-option: nonsense}}]", "checkpoint --criu-option=nonsense", "nonsense"},
		"expect":           {"[sh, -c, \"echo up; sleep 60\"]", "[run, {expect: {log: down}}]", "expect --log=down", `the log does not hold "down"`},
		"no image":         {"[sh, -c, \"echo up; sleep 60\"]", "[run, restore]", "restore", "there is no image yet"},
		"exec in it fails": {"[sh, -c, \"echo up; sleep 60\"]", "[run, {exec: [\"false\"]}]", "exec false", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := play(t, t.Context(), `
question: What is a failure?
workload: {program: `+c.program+`, ready: {log: up}}
steps: `+c.steps+`
repetitions: {runs: 2}
limits: {time: 1s}
`, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Records) != 2 {
				t.Fatalf("%d runs", len(r.Records))
			}
			for _, one := range r.Records {
				if one.Failure == nil || one.Failure.Step != c.step || !strings.Contains(one.Failure.Error, c.want) || len(one.Leaks) > 0 || one.Measures["failed"] != 1 {
					t.Errorf("%+v, leaks %v", one.Failure, one.Leaks)
				}
			}
			if f := r.Records[0].Failure; name == "expect" && f != nil {
				if files, _ := os.ReadDir(filepath.Join(r.Dir, f.Logs)); len(files) == 0 {
					t.Error("no log is kept")
				}
			}
		})
	}
}

// A command that is killed in its middle leaves a container that goes on.
func TestKill(t *testing.T) {
	r, err := play(t, t.Context(), `
question: Does it go on?
workload: {builtin: {memory: 64MiB}}
factors: {after: [1ms, 20ms, 60s]}
steps:
  - run
  - kill: {after: "${after}", step: {checkpoint: {leave-running: true}}}
  - expect: {status: running}
  - check
  - checkpoint
  - restore
  - check
repetitions: {runs: 1}
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range r.Records {
		if one.Failure != nil || len(one.Leaks) > 0 {
			t.Errorf("%s: %v, leaks %v", one.Cell, one.Failure, one.Leaks)
		}
	}
}

const short = `
question: How short is it?
workload: {program: [sleep, "60"]}
factors: {n: [1, 2, 3]}
steps:
  - run
  - wait: ${n}ms
repetitions: {runs: 2}
`

// What is interrupted leaves nothing, and goes on where it was.
func TestResume(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := filepath.Join(t.TempDir(), "results")
	r, err := play(t, ctx, short, func(o *Options) {
		o.Dir = dir
		o.Event = func(e Event) {
			if e.Done == 2 && e.Step != "" {
				cancel() // in the middle of the third
			}
		}
	})
	if !errors.Is(err, context.Canceled) || len(r.Records) != 2 {
		t.Fatalf("%v, %d runs", err, len(r.Records))
	}
	if left, _ := filepath.Glob("/var/tmp/crucible-experiment-*/root/containers/x" + strconv.Itoa(os.Getpid()) + "-*"); len(left) > 0 {
		t.Error(left)
	}
	if _, err := play(t, t.Context(), short, func(o *Options) { o.Dir = dir }); !is[*DirError](err) {
		t.Error(err)
	}
	// Killed in the middle of a line: that one is no run.
	f, err := os.OpenFile(filepath.Join(dir, FileRuns), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(`{"number": 3, "ce`)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	r, err = play(t, t.Context(), short, func(o *Options) { o.Dir, o.Resume = dir, true })
	if err != nil || len(r.Records) != 6 {
		t.Fatalf("%v, %d runs", err, len(r.Records))
	}
	cells := map[string]int{}
	for i, one := range r.Records {
		cells[one.Cell]++
		if one.Number != i+1 {
			t.Errorf("run %d is number %d", i+1, one.Number)
		}
	}
	for cell, n := range cells {
		if n != 2 {
			t.Errorf("%s: %d runs", cell, n)
		}
	}
	if again, err := Load(dir, flags); err != nil || len(again.Records) != 6 {
		t.Errorf("%v, %v", again, err)
	}
	other := strings.Replace(short, "short", "long", 1)
	if _, err := play(t, t.Context(), other, func(o *Options) { o.Dir, o.Resume = dir, true }); !is[*DirError](err) {
		t.Error(err)
	}
}

func is[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// One cell, so often as is asked for; and more of it until enough is known.
func TestRepetitions(t *testing.T) {
	r, err := play(t, t.Context(), short, func(o *Options) { o.Only, o.Runs = []string{"n=2"}, 3 })
	if err != nil || len(r.Records) != 3 || slices.ContainsFunc(r.Records, func(r Record) bool { return r.Cell != "n=2" }) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := play(t, t.Context(), short, func(o *Options) { o.Only = []string{"n=9"} }); !is[*CellError](err) {
		t.Error(err)
	}
	until := strings.Replace(short, "{runs: 2}", "{runs: 1, until: {measure: run, within: 0.1, most: 4}}", 1)
	asked := 0
	r, err = play(t, t.Context(), until, func(o *Options) {
		o.Only = []string{"n=1"}
		o.Enough = func(samples []float64, within float64) bool {
			asked++
			return len(samples) == 3 && within == 0.1
		}
	})
	if err != nil || len(r.Records) != 3 || asked != 3 {
		t.Errorf("%d runs, asked %d times, %v", len(r.Records), asked, err)
	}
}

// Runs that the host disturbed are kept and done again, but not for ever.
func TestNoise(t *testing.T) {
	r, err := play(t, t.Context(), short, func(o *Options) {
		o.Only, o.Runs = []string{"n=1"}, 1
		o.disturbed = func(*Record) bool { return true }
	})
	if err != nil || len(r.Records) != noisyLimit+1 {
		t.Fatalf("%v, %d runs", err, len(r.Records))
	}
	for i, one := range r.Records {
		if last := i == noisyLimit; (one.Kind == Noisy) == last || one.Repeated != (i > 0) {
			t.Errorf("run %d: %s, %v", one.Number, one.Kind, one.Repeated)
		}
	}
}

// What a run leaves is found, by its name or its state root.
func TestTraces(t *testing.T) {
	before := traces{cgroups: []string{"/sys/fs/cgroup/a-x1-1"}, mounts: []string{"1 /var/tmp/r/other"}}
	after := traces{
		cgroups: []string{"/sys/fs/cgroup/a-x1-1", "/sys/fs/cgroup/b-x1-1", "/sys/fs/cgroup/c-y"}, links: []string{"cru1 crucible container=x1-1 root=k", "eth0"},
		mounts: []string{"1 /var/tmp/r/other", "2 /var/tmp/r/root/containers"}, processes: []string{"7: criu --root /var/tmp/r/root"},
	}
	want := []string{"cgroup /sys/fs/cgroup/b-x1-1", "link cru1 crucible container=x1-1 root=k", "mount 2 /var/tmp/r/root/containers", "process 7: criu --root /var/tmp/r/root"}
	if got := after.beyond(before, "x1-1", "/var/tmp/r/root"); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if now := lookForTraces(); len(now.processes) == 0 || len(now.mounts) == 0 {
		t.Errorf("%+v", now)
	}
}

func TestTicks(t *testing.T) {
	before, err := parseTicks(strings.NewReader("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseTicks(strings.NewReader("cpu  130 0 60 820 70 0 0 20 5 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if n := after.since(before); n.Steal != 0.2 || n.Busy < 0.399 || n.Busy > 0.401 {
		t.Errorf("%+v", n)
	}
	quiet, loud, short := Noise{Steal: 0.04}, Noise{Steal: 0.2}, Noise{Steal: 0.2}
	if quiet.beyond(0.05, 100) || !loud.beyond(0.05, 10) || short.beyond(0.05, 0.001) {
		t.Error("noise")
	}
	if _, err := parseTicks(strings.NewReader("intr 1 2\n")); err == nil {
		t.Error("nonsense is accepted")
	}
}

// A conformance case is a workload, too: with its own verdict, and a skip where
// the kernel lacks what it needs.
func TestCase(t *testing.T) {
	r, err := play(t, t.Context(), `
question: Which come through?
workload: {case: "${case}"}
factors: {case: [pipe, cpu-affinity, huge-pages], then: [on, back]}
steps:
  - run
  - {checkpoint: {leave-running: true}, where: {then: on}}
  - {checkpoint: , where: {then: back}}
  - {restore: , where: {then: back}}
  - check
repetitions: {runs: 1}
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range r.Records {
		_, restored := one.Measures["restore"]
		if then, _ := one.Values.Get("then"); one.Lacks == "" && one.Failure == nil && restored != (then == "back") {
			t.Errorf("%s: restored: %v", one.Cell, restored)
		}
		// CRIU does not save affinity.
		want := strings.Contains(one.Cell, "cpu-affinity") && strings.Contains(one.Cell, "back")
		if skipped := one.Kind == Skipped; skipped != (one.Lacks != "") || skipped && !strings.Contains(one.Cell, "huge-pages") {
			t.Errorf("%s: %s, lacks %q", one.Cell, one.Kind, one.Lacks)
		}
		if (one.Failure != nil) != want && one.Lacks == "" {
			t.Errorf("%s: %v", one.Cell, one.Failure)
		}
	}
}
