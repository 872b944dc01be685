package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"crucible/experiments/plan"
)

// Options say how an experiment is run. Plan, Dir and Crucible are required.
type Options struct {
	Plan     *plan.Plan
	Dir      string      // for the results; it must not exist, unless Resume
	Crucible string      // the program that runs the steps
	CRIU     string      // the CRIU that it is to use; "" is its own choice
	Version  string      // of crucible, for the provenance
	Only     []string    // names of cells; none: all
	Runs     int         // of each cell; 0: as the file says
	Resume   bool        // go on where the results in Dir end
	Enough   EnoughFunc  // for Repetitions.Until
	Event    func(Event) // progress; may be nil
	Flags    plan.Flags  // to read the file in Dir again

	disturbed func(*Record) bool // nil: what the noise says
}

// EnoughFunc tells whether a cell's median of a measure is known to within a
// part of it: package report can.
type EnoughFunc func(samples []float64, within float64) bool

// Event is progress.
type Event struct {
	Done, All int           // runs
	Cell      string        // what runs now; "" at the end
	Step      string        // of it
	Record    *Record       // of a run that is through
	Left      time.Duration // estimate, from the runs so far
}

// CellError is a name of a cell that the file does not have.
type CellError struct {
	Name  string
	Cells []string
}

func (e *CellError) Error() string { return fmt.Sprintf("the experiment has no cell %q", e.Name) }

// Hint says what to do about it.
func (e *CellError) Hint() string {
	return fmt.Sprintf("its cells, such as %s, are listed by crucible experiment check", e.Cells[0])
}

// DirError is a directory that the results cannot go to.
type DirError struct{ Dir, Why, Remedy string }

func (e *DirError) Error() string { return fmt.Sprintf("results %s: %s", e.Dir, e.Why) }

// Hint says what to do about it.
func (e *DirError) Hint() string { return e.Remedy }

// engine is an experiment under way.
type engine struct {
	Options
	root    string // of containers and images, removed at the end
	file    *os.File
	records []Record
	all     int
	begun   time.Time
	before  int // records of an earlier process
}

// Run runs an experiment. Results come back also with an error, as far as it got;
// runs that failed are none.
func Run(ctx context.Context, o Options) (*Results, error) {
	e := &engine{Options: o, begun: time.Now()}
	if e.Event == nil {
		e.Event = func(Event) {}
	}
	if e.disturbed == nil {
		e.disturbed = func(r *Record) bool { return r.Noise.beyond(o.Plan.File.Limits.Steal, r.Seconds) }
	}
	cells, err := e.cells()
	if err != nil {
		return nil, err
	}
	// Where a state root is by default: the upper layers of containers need a
	// filesystem that can hold them, and /tmp may be too small.
	if e.root, err = os.MkdirTemp("/var/tmp", "crucible-experiment-"); err != nil {
		return nil, fmt.Errorf("run experiment %s: %w", o.Plan.Path, err)
	}
	defer os.RemoveAll(e.root)
	provenance, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	defer e.file.Close()
	err = e.rounds(ctx, cells)
	if err != nil {
		err = fmt.Errorf("run experiment %s: %w", o.Plan.Path, err)
	}
	return &Results{Dir: o.Dir, Plan: o.Plan, Provenance: provenance, Records: e.records}, err
}

// cells are those that are wanted.
func (e *engine) cells() ([]plan.Values, error) {
	if e.Runs != 0 {
		e.Plan.File.Repetitions.Runs = e.Runs
	}
	if len(e.Only) == 0 {
		return e.Plan.Cells, nil
	}
	var names []string
	for _, c := range e.Plan.Cells {
		names = append(names, c.String())
	}
	var out []plan.Values
	for _, name := range e.Only {
		i := slices.Index(names, name)
		if i < 0 {
			return nil, &CellError{name, names}
		}
		out = append(out, e.Plan.Cells[i])
	}
	return out, nil
}

// open makes the results directory, or goes on with it.
func (e *engine) open(ctx context.Context) (p Provenance, err error) {
	runs := filepath.Join(e.Dir, FileRuns)
	if e.Resume {
		if err := e.resume(&p); err != nil {
			return p, err
		}
	} else {
		if err := os.Mkdir(e.Dir, 0o755); errors.Is(err, fs.ErrExist) {
			return p, &DirError{e.Dir, "there is one already", "go on with it (--resume), or name another with --output"}
		} else if err != nil {
			return p, fmt.Errorf("make results: %w", err)
		}
		if p, err = describe(ctx, e.Options, e.root); err != nil {
			return p, err
		}
		data, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			return p, err
		}
		if err := errors.Join(
			os.WriteFile(filepath.Join(e.Dir, FileExperiment), e.Plan.Source, 0o644),
			os.WriteFile(filepath.Join(e.Dir, FileProvenance), append(data, '\n'), 0o644)); err != nil {
			return p, fmt.Errorf("write results: %w", err)
		}
	}
	e.file, err = os.OpenFile(runs, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	return p, err
}

// resume reads what is there. A line without an end is cut off: its run is done
// again.
func (e *engine) resume(p *Provenance) error {
	there, err := Load(e.Dir, e.Flags)
	if err != nil {
		return err
	}
	if string(there.Plan.Source) != string(e.Plan.Source) {
		return &DirError{e.Dir, "they are of another experiment than " + e.Plan.Path, "name another directory with --output"}
	}
	*p, e.records, e.before = there.Provenance, there.Records, len(there.Records)
	var whole int64
	data, err := os.ReadFile(filepath.Join(e.Dir, FileRuns))
	if err != nil {
		return err
	}
	for i, b := range data {
		if b == '\n' {
			whole = int64(i) + 1
		}
	}
	return os.Truncate(filepath.Join(e.Dir, FileRuns), whole)
}

// rounds runs all cells so often, and those that are not known well enough on.
func (e *engine) rounds(ctx context.Context, cells []plan.Values) error {
	r := e.Plan.File.Repetitions
	e.all = len(cells) * (r.WarmUp + r.Runs)
	for round := 1 - r.WarmUp; round <= r.Runs; round++ {
		if err := e.round(ctx, cells, round); err != nil {
			return err
		}
	}
	if r.Until == nil || e.Enough == nil {
		return nil
	}
	for round := r.Runs + 1; round <= r.Until.Most; round++ {
		var more []plan.Values
		for _, c := range cells {
			if !e.Enough(e.samples(c, r.Until.Measure), r.Until.Within) {
				more = append(more, c)
			}
		}
		e.all += len(more)
		if err := e.round(ctx, more, round); err != nil || len(more) == 0 {
			return err
		}
	}
	return nil
}

// samples are a cell's values of a measure.
func (e *engine) samples(c plan.Values, measure string) (all []float64) {
	for _, r := range e.records {
		if v, ok := r.Measures[measure]; ok && r.Kind == Counted && r.Cell == c.String() {
			all = append(all, v)
		}
	}
	return all
}

// round runs each cell once, in an order that seed and round decide.
func (e *engine) round(ctx context.Context, cells []plan.Values, round int) error {
	order := rand.New(rand.NewPCG(e.Plan.File.Repetitions.Seed, uint64(int64(round)))).Perm(len(cells))
	for _, i := range order {
		if e.done(cells[i], round) {
			continue
		}
		if err := e.once(ctx, cells[i], round); err != nil {
			return err
		}
	}
	return nil
}

// done: this run was made before, and not in vain.
func (e *engine) done(c plan.Values, round int) bool {
	return slices.ContainsFunc(e.records, func(r Record) bool {
		return r.Cell == c.String() && r.Round == round && r.Kind != Noisy
	})
}

// noisyLimit is how often a run that the host disturbs is done again.
const noisyLimit = 3

// once makes a run, and again if the host disturbed it.
func (e *engine) once(ctx context.Context, c plan.Values, round int) error {
	for try := 0; ; try++ {
		record, err := e.make(ctx, c, round)
		if err != nil {
			return err
		}
		record.Repeated = try > 0
		noisy := round > 0 && e.disturbed(record)
		switch {
		case record.Kind == Skipped:
		case round <= 0:
			record.Kind = WarmUp
		case noisy && try < noisyLimit:
			record.Kind = Noisy
			e.all++
		}
		if err := e.write(record); err != nil {
			return err
		}
		if record.Kind != Noisy {
			return nil
		}
	}
}

func (e *engine) make(ctx context.Context, c plan.Values, round int) (*Record, error) {
	file, err := e.Plan.In(c)
	if err != nil {
		return nil, err
	}
	number := len(e.records) + 1
	e.progress(Event{Cell: c.String()})
	r := &run{o: e.Options, root: filepath.Join(e.root, "root"), name: fmt.Sprintf("x%d-%d", os.Getpid(), number), file: file,
		event:  func(step string) { e.progress(Event{Cell: c.String(), Step: step}) },
		record: &Record{Number: number, Cell: c.String(), Values: c, Round: round, Kind: Counted, Started: time.Now().UTC(), Measures: map[string]float64{}}}
	r.do(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // it is no result: it was kept from being one
	}
	return r.record, nil
}

func (e *engine) write(r *Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := e.file.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("write down run %d: %w", r.Number, err)
	}
	e.records = append(e.records, *r)
	e.progress(Event{Record: r})
	return nil
}

func (e *engine) progress(ev Event) {
	ev.Done, ev.All = len(e.records), e.all
	if n := ev.Done - e.before; n > 0 {
		ev.Left = time.Since(e.begun) / time.Duration(n) * time.Duration(max(0, ev.All-ev.Done))
	}
	e.Event(ev)
}
