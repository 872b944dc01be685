package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"crucible/experiments/lab"
	"crucible/experiments/plan"
)

// GuestJob is the kind of a guest's job that WorkGuest does.
const GuestJob = "experiment"

// Target is a kernel with a CRIU and a cgroup layout, on which an experiment is
// run in a machine of its own. What the targets differ in is a factor like any
// other.
type Target struct {
	Kernel string // its names, for people
	CRIU   string
	Cgroup string
	// Machine is ready but for its job: see lab.Machine.
	Machine *lab.Machine
}

// valuesOf are the factors that each target stands for: its kernel, and what else
// is not the same for all.
func valuesOf(targets []Target) []plan.Values {
	var out []plan.Values
	for _, t := range targets {
		v := plan.Values{{Name: "kernel", Value: filepath.Base(t.Kernel)}}
		if slices.ContainsFunc(targets, func(o Target) bool { return o.CRIU != t.CRIU }) {
			v = append(v, plan.Value{Name: "criu", Value: t.CRIU})
		}
		if slices.ContainsFunc(targets, func(o Target) bool { return o.Cgroup != t.Cgroup }) {
			v = append(v, plan.Value{Name: "cgroup", Value: t.Cgroup})
		}
		out = append(out, v)
	}
	return out
}

// guestOrder is what a guest is asked to do.
type guestOrder struct {
	Source  []byte     `json:"source"`
	Flags   plan.Flags `json:"flags"`
	Runs    int        `json:"runs,omitempty"`
	Only    []string   `json:"only,omitempty"`
	Version string     `json:"version"`
}

// WorkGuest runs an experiment in a guest, and reports each run. See
// lab.MaybeGuest.
func WorkGuest(args json.RawMessage, g *lab.Guest) error {
	var o guestOrder
	if err := json.Unmarshal(args, &o); err != nil {
		return err
	}
	p, err := plan.Parse(FileExperiment, o.Source, o.Flags)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll("/var/tmp", 0o777); err != nil {
		return err
	}
	var tellErr error
	_, err = Run(context.Background(), Options{
		Plan: p, Dir: filepath.Join(lab.Results, "experiment"), Crucible: self, Version: o.Version, Only: o.Only, Runs: o.Runs, Flags: o.Flags,
		// Time in an emulated machine says nothing of what the host stole.
		disturbed: func(*Record) bool { return false },
		Event: func(e Event) {
			if e.Record != nil {
				tellErr = errors.Join(tellErr, g.Report(e.Record))
			}
		},
	})
	return errors.Join(err, tellErr)
}

// matrix is an experiment under way on several targets.
type matrix struct {
	Options
	mu      sync.Mutex
	file    *os.File
	records []Record
	all     int
	begun   time.Time
}

// RunMatrix runs an experiment on each target, some machines at a time, and
// writes one results directory, in which kernel, criu and cgroup are factors where they differ. A
// target that cannot be asked is a run that failed. Numbers from an emulated
// machine compare with each other only.
func RunMatrix(ctx context.Context, o Options, targets []Target, parallel int) (*Results, error) {
	e := &engine{Options: o}
	if e.Event == nil {
		e.Event = func(Event) {}
	}
	cells, err := e.cells()
	if err != nil {
		return nil, err
	}
	provenance, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	defer e.file.Close()
	r := o.Plan.File.Repetitions
	m := &matrix{Options: e.Options, file: e.file, all: len(targets) * len(cells) * (r.Runs + r.WarmUp), begun: time.Now()}
	slots := make(chan struct{}, max(1, parallel))
	var wait sync.WaitGroup
	values := valuesOf(targets)
	for i, t := range targets {
		wait.Add(1)
		go func() {
			defer wait.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			m.target(ctx, t, values[i])
		}()
	}
	wait.Wait()
	out := &Results{Dir: o.Dir, Plan: o.Plan, Provenance: provenance, Records: m.records}
	if ctx.Err() != nil {
		return out, fmt.Errorf("run experiment %s: %w", o.Plan.Path, context.Cause(ctx))
	}
	return out, nil
}

// target runs all of the experiment on one target.
func (m *matrix) target(ctx context.Context, t Target, values plan.Values) {
	if ctx.Err() != nil {
		return
	}
	args, err := json.Marshal(guestOrder{Source: m.Plan.Source, Flags: m.Flags, Runs: m.Runs, Only: m.Only, Version: m.Version})
	if err == nil {
		t.Machine.Job = lab.Job{Run: GuestJob, Args: args}
		t.Machine.Keep = filepath.Join(m.Dir, DirLogs, strings.NewReplacer("/", "-", ":", "-", " ", "-").Replace(values.String()))
		t.Machine.Handle = func(msg lab.Message) error { return m.handle(values, msg) }
		err = t.Machine.Run(ctx)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	f := &Failure{Step: "machine", Error: strings.ReplaceAll(err.Error(), "\n", "; ")}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		f.Hint = hinted.Hint()
	}
	_ = m.add(values, Record{Kind: Counted, Started: time.Now().UTC(), Measures: map[string]float64{"failed": 1, "leaks": 0}, Failure: f})
}

func (m *matrix) handle(values plan.Values, msg lab.Message) error {
	if msg.Result == nil {
		return nil
	}
	var one Record
	if err := json.Unmarshal(msg.Result, &one); err != nil {
		return &lab.Fault{Op: "read the guest's result", Err: err}
	}
	return m.add(values, one)
}

// add writes a run down, with its target's factors.
func (m *matrix) add(values plan.Values, one Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	one.Number = len(m.records) + 1
	one.Values = append(slices.Clone(values), one.Values...)
	one.Cell = one.Values.String()
	data, err := json.Marshal(one)
	if err == nil {
		_, err = m.file.Write(append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write down run %d: %w", one.Number, err)
	}
	m.records = append(m.records, one)
	left := time.Since(m.begun) / time.Duration(len(m.records)) * time.Duration(max(0, m.all-len(m.records)))
	m.Event(Event{Done: len(m.records), All: max(m.all, len(m.records)), Cell: one.Cell, Record: &one, Left: left})
	return nil
}
