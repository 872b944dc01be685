package report

import (
	"fmt"
	"math"

	"golang.org/x/perf/benchmath"

	"crucible/experiments/engine"
	"crucible/experiments/plan"
)

// Comparison is what differs between two results of an experiment.
type Comparison struct {
	Changes  []Change        `json:"changes"`
	Verdicts []VerdictChange `json:"verdicts"` // bounds that came to something else
	Machines []FactChange    `json:"machines"` // what the two were run on, where it differs
}

// Change is a measure in a cell that both have.
type Change struct {
	Measure string    `json:"measure"`
	Cell    string    `json:"cell"`
	Unit    plan.Unit `json:"unit"`
	Before  float64   `json:"before"` // medians
	After   float64   `json:"after"`
	P       float64   `json:"p"`           // of the Mann-Whitney U test: how likely chance alone would be
	Differs bool      `json:"significant"` // P is below 0.05
}

// VerdictChange is a bound in a cell with another verdict than before.
type VerdictChange struct {
	Bound  string  `json:"bound"`
	Cell   string  `json:"cell"`
	Before Verdict `json:"before"`
	After  Verdict `json:"after"`
}

// FactChange is what differs between two machines.
type FactChange struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// Compare compares cells of the same names.
func Compare(before, after *Report) *Comparison {
	d := &Comparison{Changes: []Change{}, Verdicts: []VerdictChange{}, Machines: []FactChange{}}
	after.rows(func(measure string, c *Cell, s *Series) {
		for i := range before.Cells {
			old := before.Cells[i].Find(measure)
			if before.Cells[i].Name != c.Name || old == nil {
				continue
			}
			d.Changes = append(d.Changes, changeOf(c.Name, old, s))
		}
	})
	for _, now := range after.Judgements {
		for _, was := range before.Judgements {
			if was.Bound == now.Bound && was.Cell == now.Cell && was.Verdict != now.Verdict {
				d.Verdicts = append(d.Verdicts, VerdictChange{now.Bound, now.Cell, was.Verdict, now.Verdict})
			}
		}
	}
	d.Machines = factChanges(before.Provenance, after.Provenance)
	return d
}

func changeOf(cell string, before, after *Series) Change {
	t := &benchmath.DefaultThresholds
	c := benchmath.AssumeNothing.Compare(benchmath.NewSample(before.Samples, t), benchmath.NewSample(after.Samples, t))
	return Change{Measure: after.Measure, Cell: cell, Unit: after.Unit, Before: before.Median, After: after.Median, P: c.P, Differs: c.P < 1-confidence}
}

func factChanges(before, after engine.Provenance) []FactChange {
	all := []FactChange{}
	was := map[string]string{}
	for _, f := range facts(before) {
		was[f[0]] = f[1]
	}
	for _, f := range facts(after) {
		if f[0] != "when" && was[f[0]] != f[1] {
			all = append(all, FactChange{f[0], was[f[0]], f[1]})
		}
	}
	return all
}

// BeforeText and AfterText are the medians for people.
func (c Change) BeforeText() string { return text(c.Unit, c.Before) }

// AfterText is the later median for people.
func (c Change) AfterText() string { return text(c.Unit, c.After) }

// Percent is the change of the median.
func (c Change) Percent() string {
	if c.Before == 0 {
		if c.After == 0 {
			return "0 %"
		}
		return "?"
	}
	return fmt.Sprintf("%+.1f %%", 100*(c.After/c.Before-1))
}

// Word says whether the change can be chance.
func (c Change) Word() string {
	switch {
	case !c.Differs || math.IsNaN(c.P):
		return "may be chance"
	case c.After > c.Before:
		return "more"
	}
	return "less"
}

// ExitCode says in a number whether all that held before holds.
func (d *Comparison) ExitCode() int {
	for _, v := range d.Verdicts {
		if v.Before == Holds {
			return Bad
		}
	}
	return Good
}
