package conformance

import (
	"context"
	"encoding/json"
	"os"
	"path"
	"time"

	"crucible/checkpoint/criu"
	"crucible/container"
	"crucible/experiments/lab"
	"crucible/experiments/workload"
)

// JobName is the kind of a guest's job that Work does.
const JobName = "cases"

// order is what a guest is asked to do.
type order struct {
	Cases   []string      `json:"cases,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // of each, nanoseconds
	// Rounds is how often each case is counted, after once that is not. 0 does
	// each once.
	Rounds  int  `json:"rounds,omitempty"`
	Symbols bool `json:"symbols,omitempty"` // tell only the kernel's functions
}

// answer is what a guest says of a case.
type answer struct {
	workload.Result
	Rounds rounds `json:"rounds,omitempty"`
}

// Work runs cases in a guest. See lab.MaybeGuest.
func Work(args json.RawMessage, g *lab.Guest) error {
	var o order
	if err := json.Unmarshal(args, &o); err != nil {
		return err
	}
	if o.Symbols {
		return tellSymbols(g)
	}
	ctx := context.Background()
	found, err := criu.Find("")
	if err != nil {
		return err
	}
	var cases []workload.Case
	for _, name := range o.Cases {
		c, err := workload.Find(name)
		if err != nil {
			return err
		}
		cases = append(cases, c)
	}
	features, err := workload.Probe(ctx, found, cases)
	if err != nil {
		return err
	}
	options := workload.Options{
		Root: container.Root(container.DefaultRoot), CRIU: found, Features: features,
		Dir: path.Join(lab.Results, "cases"), Timeout: o.Timeout,
	}
	for _, c := range cases {
		g.Begin(c.Name)
		a := answer{Result: workload.Run(ctx, c, options)}
		for n := 0; n < o.Rounds && a.Verdict == workload.Pass; n++ {
			g.Alive()
			var phases []phase
			counted := options
			counted.Around = counting(&phases)
			a.Result = workload.Run(ctx, c, counted)
			a.Rounds = append(a.Rounds, phases)
		}
		g.Settle() // what the kernel said is this case's
		if err := g.Report(a); err != nil {
			return err
		}
	}
	return nil
}

// settle is how long a guest waits before a phase is counted, and in the end of
// it: for processes to be gone that have been told to, and for what the kernel
// does a grace period of RCU later. It then belongs to the phase that caused it,
// and not to one or the other. Where the processor has nothing to do that time
// costs nothing.
const settle = 20 * time.Millisecond

// counting makes an Around of workload's that has the phases counted.
func counting(phases *[]phase) func(string, func() error) error {
	return func(name string, f func() error) error {
		p := phase{Mark: lab.MarkCheckpoint}
		if name == "restore" {
			p.Mark = lab.MarkRestore
		}
		time.Sleep(settle)
		err := lab.Between(p.Mark, func() error {
			start := time.Now()
			err := f()
			p.Virtual = time.Since(start)
			time.Sleep(settle)
			return err
		})
		*phases = append(*phases, p)
		return err
	}
}

func tellSymbols(g *lab.Guest) error {
	file, err := os.Open("/proc/kallsyms")
	if err != nil {
		return err
	}
	defer file.Close()
	packed, err := lab.PackSymbols(file)
	if err != nil {
		return err
	}
	return g.Report(packed)
}
