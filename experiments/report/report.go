package report

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"crucible/experiments/engine"
	"crucible/experiments/plan"
)

// Report is an experiment's results, as people read them.
type Report struct {
	Question   string            `json:"question"`
	Cells      []Cell            `json:"cells"`
	Shown      []string          `json:"measures"` // what the file asks for
	Judgements []Judgement       `json:"judgements"`
	Failures   []engine.Record   `json:"failures"`  // runs that count and failed
	Differing  []engine.Record   `json:"differing"` // runs that count, did not fail, and in which --verify found a difference
	Threats    []string          `json:"threats"`   // to what can be concluded
	Provenance engine.Provenance `json:"provenance"`

	experiment string // the file's text
	path       string
}

// Verdict is what came of a bound.
type Verdict string

// The verdicts. Unknown: no run has said anything about it.
const (
	Holds   Verdict = "holds"
	Broken  Verdict = "broken"
	Unknown Verdict = "unknown"
)

// Judgement is a bound in a cell.
type Judgement struct {
	Bound   string    `json:"bound"`
	Cell    string    `json:"cell"`
	Verdict Verdict   `json:"verdict"`
	Value   float64   `json:"value"` // of the statistic, in the measure's unit
	Unit    plan.Unit `json:"unit"`
}

// New makes a report.
func New(r *engine.Results) *Report {
	out := &Report{
		Question: strings.TrimSpace(r.Plan.File.Question), Cells: cellsOf(r), Shown: r.Plan.File.Measures, Provenance: r.Provenance,
		Judgements: []Judgement{}, Failures: []engine.Record{}, Differing: []engine.Record{}, experiment: string(r.Plan.Source), path: r.Plan.Path,
	}
	for _, one := range r.Records {
		if one.Failure != nil && one.Kind == engine.Counted {
			out.Failures = append(out.Failures, one)
		} else if len(one.Differs) > 0 && one.Kind == engine.Counted {
			out.Differing = append(out.Differing, one)
		}
	}
	if len(out.Shown) == 0 {
		out.Shown = out.measured()
	}
	out.judge(r.Plan.File)
	out.Threats = threats(r, out)
	return out
}

// measured are the usual measures that there are samples of.
func (r *Report) measured() (all []string) {
	for _, m := range plan.Measures() {
		if m.Name != "failed" && m.Name != "leaks" && r.has(m.Name) {
			all = append(all, m.Name)
		}
	}
	return all
}

// has tells whether there are samples of a measure.
func (r *Report) has(measure string) bool {
	return slices.ContainsFunc(r.Cells, func(c Cell) bool { return c.Find(measure) != nil })
}

// judge holds each bound against each cell. That no run fails, and none leaves
// anything behind, must hold unless the file says otherwise.
func (r *Report) judge(f *plan.File) {
	bounds := slices.Clone(f.Hold)
	for _, name := range []string{"failed", "leaks", "differences"} {
		if name == "differences" && !r.has(name) {
			continue
		}
		if !slices.ContainsFunc(bounds, func(b plan.Bound) bool { return b.Measure == name }) {
			bounds = append(bounds, plan.Bound{Measure: name, Statistic: "max", AtMost: "0"})
		}
	}
	for _, b := range bounds {
		m, _ := plan.FindMeasure(b.Measure)
		most, least := b.Limits()
		for i := range r.Cells {
			if !b.Covers(r.Cells[i].Values) || r.Cells[i].Lacks != "" && r.Cells[i].Runs == 0 {
				continue
			}
			j := Judgement{Bound: b.String(), Cell: r.Cells[i].Name, Verdict: Unknown, Unit: m.Unit}
			if s := r.Cells[i].Find(b.Measure); s != nil {
				j.Value, j.Verdict = s.Statistic(b.Statistic), Holds
				if most != nil && j.Value > *most || least != nil && j.Value < *least {
					j.Verdict = Broken
				}
			}
			if c := r.Cells[i]; j.Verdict == Unknown && c.Runs > 0 && c.Runs == c.Failed {
				continue // that they failed is a judgement of its own
			}
			r.Judgements = append(r.Judgements, j)
		}
	}
}

// Exit codes of a report: everything holds, something does not.
const (
	Good = 0
	Bad  = 1
)

// ExitCode says in a number whether all that must hold does.
func (r *Report) ExitCode() int {
	for _, j := range r.Judgements {
		if j.Verdict != Holds {
			return Bad
		}
	}
	return Good
}

// Answer says in a line what came out.
func (r *Report) Answer() string {
	count := map[Verdict]int{}
	for _, j := range r.Judgements {
		count[j.Verdict]++
	}
	runs, failed := 0, 0
	for _, c := range r.Cells {
		runs, failed = runs+c.Runs, failed+c.Failed
	}
	skipped := 0
	for _, c := range r.Cells {
		if c.Lacks != "" && c.Runs == 0 {
			skipped++
		}
	}
	text := fmt.Sprintf("%d of %d bounds hold; %s in %s, %d failed", count[Holds], len(r.Judgements), number(runs, "run"), number(len(r.Cells)-skipped, "cell"), failed)
	if skipped > 0 {
		text += fmt.Sprintf("; %s skipped, for what the kernel lacks", number(skipped, "cell"))
	}
	if n := count[Unknown]; n > 0 {
		text += fmt.Sprintf("; of %d nothing is known", n)
	}
	return text
}

func number(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// fewest samples of a median whose 95 % interval exists: 2·(1/2)^n <= 0.05.
const fewest = 6

// threats are the reasons for which the numbers may say less than they seem to.
func threats(r *engine.Results, out *Report) []string {
	all := []string{}
	least, noisy, busiest := -1, 0, 0.0
	for _, c := range out.Cells {
		if n := c.Runs - c.Failed; n > 0 && (least < 0 || n < least) {
			least = n
		}
		noisy += c.Noisy
	}
	for _, one := range r.Records {
		busiest = max(busiest, one.Noise.Load)
	}
	if least >= 0 && least < fewest {
		all = append(all, fmt.Sprintf("A cell has only %s that did not fail: there is no 95 %% interval of a median below %d.", number(least, "run"), fewest))
	}
	if noisy > 0 {
		all = append(all, fmt.Sprintf("The host was kept from running (steal) during %s; they were done again.", number(noisy, "run")))
	}
	if busiest > float64(r.Provenance.Processors) {
		all = append(all, fmt.Sprintf("The machine's load went up to %.1f, on %s.", busiest, number(r.Provenance.Processors, "processor")))
	}
	if r.Provenance.Hypervisor {
		all = append(all, "It ran in a virtual machine, whose host shares its processors and its disk with others.")
	}
	if g := r.Provenance.Governor; g != "" && g != "performance" {
		all = append(all, "The processor's frequency governor was "+g+", not performance.")
	}
	return all
}

func mapKeys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// text is a quantity for people.
func text(unit plan.Unit, v float64) string {
	if v < 0 {
		return "-" + text(unit, -v)
	}
	switch unit {
	case plan.Seconds:
		switch {
		case v == 0:
			return "0"
		case v < 1e-3:
			return fmt.Sprintf("%.0f µs", v*1e6)
		case v < 1:
			return fmt.Sprintf("%.3g ms", v*1e3)
		}
		return fmt.Sprintf("%.3g s", v)
	case plan.Bytes:
		for _, u := range []struct {
			name string
			size float64
		}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
			if v >= u.size {
				return fmt.Sprintf("%.3g %s", v/u.size, u.name)
			}
		}
		return fmt.Sprintf("%.0f B", v)
	}
	return fmt.Sprintf("%.4g", v)
}

// worst sorts judgements: what is broken comes first.
func worst(all []Judgement) []Judgement {
	order := map[Verdict]int{Broken: 0, Unknown: 1, Holds: 2}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b Judgement) int { return cmp.Compare(order[a.Verdict], order[b.Verdict]) })
	return out
}

func day(t time.Time) string { return t.Format("2006-01-02 15:04 MST") }
