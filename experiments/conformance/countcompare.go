package conformance

import (
	"math"
	"sort"
)

// Difference is what a phase of a case costs more, or less, on one target than on
// another.
type Difference struct {
	Case  string `json:"case"`
	Phase string `json:"phase"` // "checkpoint" or "restore"
	Unit  Unit   `json:"unit"`
	// Before and After are the means of the rounds; Percent is how much more it
	// became, and Error that one's standard error.
	Before  float64 `json:"before"`
	After   float64 `json:"after"`
	Percent float64 `json:"percent"`
	Error   float64 `json:"error"`
	// Functions are those that changed by more than one round differs from
	// another, the largest change first, and Changed is their change together, in
	// percent of Before. What is left out is what makes Error large: the state
	// that the kernel's allocators are in, and who runs when. Between two runs on
	// one kernel Changed is below 0.1.
	Functions []FunctionChange `json:"functions,omitempty"`
	Changed   float64          `json:"changed"`
}

// Unit is what a Difference compares.
type Unit string

// The units. Time is compared where the plug-in was missing.
const (
	KernelInstructions Unit = "kernel instructions"
	VirtualTime        Unit = "nanoseconds of virtual time"
)

// FunctionChange is a function of the kernel's before and after, in instructions;
// 0 where it does not exist, or hardly ran.
type FunctionChange struct {
	Name   string `json:"name"`
	Before uint64 `json:"before"`
	After  uint64 `json:"after"`
}

func (f FunctionChange) more() float64 { return float64(f.After) - float64(f.Before) }

// Grew tells whether the cost grew by more than some percent: by the functions
// that changed, or in all, beyond twice the error.
func (d *Difference) Grew(percent float64) bool {
	return d.Changed > percent || d.Percent-2*d.Error > percent
}

// CompareCounts lists the differences of two answers, two for each case that was
// counted in both, in order.
func CompareCounts(cases []string, before, after *Answer) []Difference {
	var all []Difference
	for _, name := range cases {
		b, a := before.Find(name), after.Find(name)
		if b == nil || a == nil || b.Counts == nil || a.Counts == nil {
			continue
		}
		all = append(all, difference(name, "checkpoint", &b.Counts.Checkpoint, &a.Counts.Checkpoint),
			difference(name, "restore", &b.Counts.Restore, &a.Counts.Restore))
	}
	return all
}

func difference(name, phase string, before, after *Cost) Difference {
	d := Difference{Case: name, Phase: phase, Unit: KernelInstructions}
	was, is := before.Kernel, after.Kernel
	if was == nil || is == nil {
		d.Unit, was, is = VirtualTime, before.Virtual, after.Virtual
	}
	var wasError, isError float64
	d.Before, wasError = mean(was)
	d.After, isError = mean(is)
	if d.Before == 0 {
		return d // the case has no such phase
	}
	d.Percent = 100 * (d.After - d.Before) / d.Before
	d.Error = 100 * math.Hypot(wasError, isError) / d.Before
	if d.Unit == KernelInstructions {
		d.Functions = functionChanges(before.Functions, after.Functions, d.Before*share)
	}
	for _, f := range d.Functions {
		d.Changed += 100 * f.more() / d.Before
	}
	return d
}

// certain is by how many standard errors a function must change to have changed.
// With the error of five rounds one of a hundred does so by chance.
const certain = 5

func functionChanges(before, after []Function, least float64) []FunctionChange {
	was := map[string]Function{}
	for _, f := range before {
		was[f.Name] = f
	}
	var all []FunctionChange
	add := func(name string, b, a Function) {
		c := FunctionChange{name, b.Mean, a.Mean}
		if math.Abs(c.more()) > max(least, certain*math.Hypot(float64(b.Error), float64(a.Error))) {
			all = append(all, c)
		}
	}
	for _, f := range after {
		add(f.Name, was[f.Name], f)
		delete(was, f.Name)
	}
	for _, f := range was {
		add(f.Name, f, Function{})
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := math.Abs(all[i].more()), math.Abs(all[j].more())
		return a > b || a == b && all[i].Name < all[j].Name
	})
	return all
}
