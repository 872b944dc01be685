package conformance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"crucible/experiments/lab"
	"crucible/experiments/workload"
)

// Options say how targets are tested. QEMU and Cases are required.
type Options struct {
	QEMU      *lab.QEMU
	Cases     []workload.Case
	MemoryMiB int // of a machine; 0 is lab's default
	CPUs      int
	Parallel  int           // machines at a time; 1 if 0
	Timeout   time.Duration // of one case, in the guest; DefaultTimeout if 0
	Append    []string      // more words for the kernels' command lines
	// Keep is the directory for the results folders, one for each target. If
	// empty, nothing is kept.
	Keep string
	// Event, if not nil, is told what happens; calls do not overlap.
	Event func(Event)
	// Count has the instructions counted that checkpoints and restores take. Each
	// case then has a machine of its own: what ran before it would change what it
	// costs.
	Count *Count

	program string // for lab.Machine
}

// DefaultTimeout is how long a case may take. Most take a second in an emulated
// machine.
const DefaultTimeout = 30 * time.Second

// Event is something that happens while targets are tested.
type Event struct {
	Target  Target
	Ready   *lab.Ready // the guest is up
	Begin   string     // a case starts
	Outcome *Outcome   // it has ended
	Done    bool       // the target is through
}

// Run asks all cases of all targets. The error is that of the context; whatever
// keeps a target from being tested is in its answer.
func Run(ctx context.Context, targets []Target, o Options) (*Report, error) {
	r := &Report{Machine: "software emulation", Answers: make([]Answer, len(targets))}
	if o.QEMU.KVM && o.Count == nil {
		r.Machine = "KVM"
	}
	if o.Count != nil {
		var err error
		if r.Counting, err = o.counting(ctx); err != nil {
			return nil, err
		}
	}
	for _, c := range o.Cases {
		r.Cases = append(r.Cases, c.Name)
	}
	start := time.Now()
	s := &session{Options: o, slots: make(chan struct{}, max(o.Parallel, 1))}
	var wait sync.WaitGroup
	keep := folders(targets)
	for i, t := range targets {
		wait.Add(1)
		go func() {
			defer wait.Done()
			r.Answers[i] = s.target(ctx, t, keep[i], s.shards(len(targets)))
			s.tell(Event{Target: t, Done: true})
		}()
	}
	wait.Wait()
	r.Took = time.Since(start)
	return r, ctx.Err()
}

// session is one call of Run.
type session struct {
	Options
	slots chan struct{} // a machine takes one
	mu    sync.Mutex    // for Event
}

func (s *session) tell(e Event) {
	if s.Event == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Event(e)
}

// worthAMachine is how many cases make up for booting one more.
const worthAMachine = 6

// shards is the number of machines for one target, where there are fewer targets
// than can be run at a time.
func (s *session) shards(targets int) int {
	if s.Count != nil {
		return len(s.Cases)
	}
	return max(1, min(cap(s.slots)/targets, len(s.Cases)/worthAMachine))
}

// target tests one target in some machines.
func (s *session) target(ctx context.Context, t Target, folder string, shards int) Answer {
	answer := Answer{Kernel: t.Kernel.Name, CRIU: t.CRIU.Version, Cgroup: t.Cgroup}
	if s.Keep != "" {
		answer.Results = filepath.Join(s.Keep, folder)
	}
	start := time.Now()
	parts := make([]*part, shards)
	var wait sync.WaitGroup
	symbols := sync.OnceValues(func() (lab.Symbols, error) { return s.symbols(ctx, t) })
	wait.Add(1)
	go func() { // meanwhile
		defer wait.Done()
		_, _ = symbols()
	}()
	for i := range parts {
		p := &part{session: s, target: t, symbols: symbols}
		for j := i; j < len(s.Cases); j += shards {
			p.todo = append(p.todo, s.Cases[j].Name)
		}
		if s.Keep != "" {
			p.keep = answer.Results
			switch {
			case s.Count != nil:
				p.keep = filepath.Join(answer.Results, p.todo[0])
			case shards > 1:
				p.keep = filepath.Join(answer.Results, fmt.Sprintf("machine-%d", i+1))
			}
		}
		parts[i] = p
		wait.Add(1)
		go func() {
			defer wait.Done()
			p.run(ctx)
		}()
	}
	wait.Wait()
	for _, p := range parts {
		answer.add(p)
	}
	if s.Count != nil {
		answer.Took = time.Since(start) // the machines come one after the other
	}
	place := map[string]int{}
	for i, c := range s.Cases {
		place[c.Name] = i
	}
	sort.SliceStable(answer.Outcomes, func(i, j int) bool {
		return place[answer.Outcomes[i].Case] < place[answer.Outcomes[j].Case]
	})
	return answer
}

// folder is the name of a target's results folder.
// folders names the results folder of each target. Two kernels of the same name
// have a number each.
func folders(targets []Target) []string {
	seen := map[string]int{}
	var names []string
	for _, t := range targets {
		name := t.folder()
		if seen[name]++; seen[name] > 1 {
			name += fmt.Sprintf("-%d", seen[name])
		}
		names = append(names, name)
	}
	return names
}

func (t Target) folder() string {
	return fileName(t.Kernel.Name) + "_criu-" + fileName(t.CRIU.Version) + "_" + t.Cgroup
}

func fileName(s string) string {
	clean := []rune(filepath.Base(s))
	for i, c := range clean {
		if c == ':' || c == ' ' {
			clean[i] = '-'
		}
	}
	return string(clean)
}

func (a *Answer) add(p *part) {
	a.Outcomes = append(a.Outcomes, p.outcomes...)
	a.Took = max(a.Took, p.took)
	if p.ready != nil {
		a.Release = p.ready.Release
		a.Boot = max(a.Boot, p.ready.Uptime)
	}
	if p.unnamed != nil {
		a.Unnamed = p.unnamed.Error()
	}
	var hinter interface{ Hint() string }
	if p.fault != nil && a.Fault == "" {
		a.Fault = p.fault.Error()
		if errors.As(p.fault, &hinter) {
			a.Hint = hinter.Hint()
		}
	}
}

// part is the share of a target's cases that is done in machines one after the
// other.
type part struct {
	*session
	target  Target
	todo    []string
	keep    string
	symbols func() (lab.Symbols, error)

	ready      *lab.Ready
	outcomes   []Outcome
	complaints []string
	late       []string // cases that ran out of time, to be asked once more
	again      bool     // that is being done
	began      time.Time
	took       time.Duration
	fault      error
	tally      *tally // of the only case, if it is counted
	unnamed    error  // why its functions have no names
}

// run starts machines until nothing is to do. A machine that the kernel ended
// has done at least one case, which failed, so there is an end to it.
func (p *part) run(ctx context.Context) {
	if p.fault = p.take(ctx); p.fault != nil {
		return
	}
	start := time.Now()
	p.fault = p.machines(ctx)
	p.took = time.Since(start)
	p.give()
	if p.Count != nil {
		p.name()
	}
}

// take waits for a slot.
func (s *session) take(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) give() { <-s.slots }

func (p *part) machines(ctx context.Context) error {
	for attempt := 1; p.more(); attempt++ {
		before := len(p.todo)
		err := p.machine(ctx, attempt)
		var kernel *lab.KernelError
		switch {
		case err == nil && len(p.todo) < before:
			continue
		case err == nil:
			return errors.New("the guest ended without a result")
		case errors.As(err, &kernel):
			p.died(kernel)
		default:
			return err
		}
	}
	return nil
}

// newMachine makes a machine that does what a guest is asked.
func (s *session) newMachine(t Target, o order) (*lab.Machine, error) {
	args, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	m := &lab.Machine{
		QEMU: s.QEMU, Kernel: t.Kernel.Image, Modules: t.Kernel.Modules, Absent: t.Kernel.Absent,
		Files: t.CRIU.Files, Criu: t.CRIU.Path, Rundir: t.CRIU.Rundir, Cgroup: t.Cgroup,
		Program: s.program, MemoryMiB: s.MemoryMiB, CPUs: s.CPUs, Append: s.Append,
		Job: lab.Job{Run: JobName, Args: args},
	}
	if s.Count != nil {
		m.Count = &lab.Count{Seed: s.Count.Seed, Plugin: s.Count.Plugin}
	}
	return m, nil
}

func (p *part) machine(ctx context.Context, attempt int) error {
	o := order{Cases: p.todo, Timeout: cmp.Or(p.Timeout, DefaultTimeout)}
	if p.Count != nil {
		o.Rounds = p.Count.rounds()
	}
	m, err := p.newMachine(p.target, o)
	if err != nil {
		return err
	}
	m.Keep = p.keep
	if m.Keep != "" && attempt > 1 {
		m.Keep += fmt.Sprintf(".%d", attempt)
	}
	m.Handle = func(msg lab.Message) error { return p.handle(m, msg) }
	return m.Run(ctx)
}

func (p *part) handle(from *lab.Machine, m lab.Message) error {
	switch {
	case m.Ready != nil:
		p.ready = m.Ready
		p.tell(Event{Target: p.target, Ready: m.Ready})
	case m.Begin != "":
		p.began, p.complaints = time.Now(), nil
		p.tell(Event{Target: p.target, Begin: m.Begin})
	case m.Kernel != nil:
		p.complaints = append(p.complaints, m.Kernel...)
	case m.Result != nil:
		var a answer
		if err := json.Unmarshal(m.Result, &a); err != nil {
			return &lab.Fault{Op: "read the guest's result", Err: err}
		}
		if len(a.Rounds) > 0 && a.Verdict == workload.Pass {
			if err := p.count(from, a.Rounds); err != nil {
				return &lab.Fault{Op: "count the guest's instructions", Err: err}
			}
		}
		return p.finish(Outcome{Result: a.Result})
	}
	return nil
}

// finish takes the outcome of the case that is due.
func (p *part) finish(o Outcome) error {
	if len(p.todo) == 0 || p.todo[0] != o.Case {
		return &lab.Fault{Op: "read the guest's result", Err: fmt.Errorf("%q is not due", o.Case)}
	}
	p.todo = p.todo[1:]
	if p.Count == nil && !p.again && o.late() {
		p.late, p.complaints = append(p.late, o.Case), nil
		return nil
	}
	if o.Kernel = append(p.complaints, o.Kernel...); len(o.Kernel) > 0 && o.Verdict != workload.Fail {
		o.Verdict, o.Step = workload.Fail, "kernel"
		o.Reason = "the kernel complained: " + o.Kernel[0]
	}
	p.complaints = nil
	p.outcomes = append(p.outcomes, o)
	if p.Count == nil { // else see name
		p.tell(Event{Target: p.target, Outcome: &o})
	}
	return nil
}

// more tells whether there is a case to be asked, or to be asked once more: a
// host with too much to do makes any case late, a kernel that hangs does so
// again.
func (p *part) more() bool {
	if len(p.todo) == 0 && len(p.late) > 0 {
		p.todo, p.late, p.again = p.late, nil, true
	}
	return len(p.todo) > 0
}

// late: the case did not fail, it ran out of time, or the guest was not heard of
// for too long.
func (o *Outcome) late() bool {
	return o.Verdict == workload.Fail &&
		(strings.HasPrefix(o.Reason, "not done after ") || o.Step == "kernel" && strings.Contains(o.Reason, "fell silent"))
}

// died makes the outcome of the case during which the kernel did, or of the last
// one, if the machine was to end.
func (p *part) died(e *lab.KernelError) {
	if len(p.todo) == 0 {
		last := &p.outcomes[len(p.outcomes)-1]
		last.Verdict, last.Step, last.Reason, last.Kernel = workload.Fail, "kernel", e.Error(), e.Lines
		return
	}
	o := Outcome{Kernel: e.Lines}
	o.Case, o.Verdict, o.Step, o.Took = p.todo[0], workload.Fail, "kernel", time.Since(p.began)
	o.Reason = e.Error()
	_ = p.finish(o)
}
