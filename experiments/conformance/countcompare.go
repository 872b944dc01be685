package conformance

import (
	"fmt"
	"math"
	"sort"
	"strings"
)

// A Difference is what a phase of a case costs more, or less, on one target than
// on another.
type Difference struct {
	Case  string `json:"case"`
	Phase string `json:"phase"` // "checkpoint" or "restore"
	// Unit is what is compared: "kernel instructions", or where the plug-in was
	// missing "virtual nanoseconds".
	Unit    string  `json:"unit"`
	Before  float64 `json:"before"`  // means of the rounds
	After   float64 `json:"after"`   //
	Percent float64 `json:"percent"` // of before
	Error   float64 `json:"error"`   // standard error of percent
	// Functions are those that changed by more than three times the standard
	// error, the largest change first.
	Functions []FunctionChange `json:"functions,omitempty"`
}

// FunctionChange is a function of the kernel's before and after; 0 where it does
// not exist, or did not run.
type FunctionChange struct {
	Name   string `json:"name"`
	Before uint64 `json:"before"`
	After  uint64 `json:"after"`
}

func (f FunctionChange) delta() int64 { return int64(f.After - f.Before) }

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
	d := Difference{Case: name, Phase: phase, Unit: "kernel instructions", Functions: functionChanges(before.Functions, after.Functions)}
	was, is := before.Kernel, after.Kernel
	if was == nil || is == nil {
		d.Unit, was, is = "virtual nanoseconds", before.Virtual, after.Virtual
	}
	var wasError, isError float64
	d.Before, wasError = mean(was)
	d.After, isError = mean(is)
	if d.Before > 0 {
		d.Percent = 100 * (d.After - d.Before) / d.Before
		d.Error = 100 * math.Hypot(wasError, isError) / d.Before
	}
	return d
}

func functionChanges(before, after []Function) []FunctionChange {
	was := map[string]Function{}
	for _, f := range before {
		was[f.Name] = f
	}
	var all []FunctionChange
	add := func(b, a Function) {
		c := FunctionChange{b.Name, b.Mean, a.Mean}
		if math.Abs(float64(c.delta())) > 3*math.Hypot(float64(b.Error), float64(a.Error)) {
			all = append(all, c)
		}
	}
	for _, f := range after {
		b := was[f.Name]
		b.Name = f.Name
		add(b, f)
		delete(was, f.Name)
	}
	for _, f := range was {
		add(f, Function{})
	}
	size := func(c FunctionChange) int64 { return max(c.delta(), -c.delta()) }
	sort.Slice(all, func(i, j int) bool {
		return size(all[i]) > size(all[j]) || size(all[i]) == size(all[j]) && all[i].Name < all[j].Name
	})
	return all
}

// shownFunctions is how many of a difference's functions are for people.
const shownFunctions = 6

// String is a line for the difference and one for each of the functions that
// changed most.
func (d Difference) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %+.1f %% ± %.1f, %s -> %s %s", d.Case, d.Phase, d.Percent, d.Error, d.amount(d.Before), d.amount(d.After), d.unit())
	for i, f := range d.Functions {
		if i == shownFunctions {
			break
		}
		fmt.Fprintf(&b, "\n  %+9.3f M  %s, %.3f -> %.3f M", float64(f.delta())/1e6, f.Name, millions(f.Before), millions(f.After))
	}
	return b.String()
}

func (d Difference) amount(x float64) string {
	if d.Unit == "virtual nanoseconds" {
		return fmt.Sprintf("%.2f", x/1e6)
	}
	return fmt.Sprintf("%.2f M", x/1e6)
}

func (d Difference) unit() string {
	if d.Unit == "virtual nanoseconds" {
		return "ms of virtual time"
	}
	return d.Unit
}

func millions(n uint64) float64 { return float64(n) / 1e6 }

// String is a cost in one line: means, the standard error of the kernel's, and
// the dearest functions.
func (c *Cost) String() string {
	virtual, _ := mean(c.Virtual)
	if c.Kernel == nil {
		return fmt.Sprintf("%.3f ms of virtual time", virtual/1e6)
	}
	kernel, sem := mean(c.Kernel)
	user, _ := mean(c.User)
	text := fmt.Sprintf("%.2f M instructions of the kernel ± %.1f %%, %.2f M of programs", kernel/1e6, 100*sem/max(kernel, 1), user/1e6)
	for i, f := range c.Functions {
		if i == 3 {
			break
		}
		text += fmt.Sprintf(", %s %.1f %%", f.Name, 100*float64(f.Mean)/max(kernel, 1))
	}
	return text
}

// countLines are a case's counts, a line for each phase.
func (o *Outcome) countLines() []string {
	if o.Counts == nil {
		return nil
	}
	return []string{"checkpoint: " + o.Counts.Checkpoint.String(), "restore: " + o.Counts.Restore.String()}
}

// String says how it was counted.
func (c *Counting) String() string {
	what := "instructions counted"
	if !c.Plugin {
		what = "virtual time"
	}
	rounds := "rounds"
	if c.Rounds == 1 {
		rounds = "round"
	}
	return fmt.Sprintf("%s in %d %s after one that warms up, seed %d, -cpu %s, QEMU %s", what, c.Rounds, rounds, c.Seed, c.CPU, c.QEMU)
}
