package report

import (
	"math"
	"slices"

	"github.com/aclements/go-moremath/stats"
	"golang.org/x/perf/benchmath"

	"crucible/experiments/engine"
	"crucible/experiments/plan"
)

// Series is what is known of a measure in a cell. Numbers are in the measure's
// unit.
type Series struct {
	Measure string    `json:"measure"`
	Unit    plan.Unit `json:"unit"`
	N       int       `json:"n"`
	Median  float64   `json:"median"`
	Low     float64   `json:"low"` // of the 95 % interval of the median; equal to Median where there are too few samples for one
	High    float64   `json:"high"`
	Mean    float64   `json:"mean"`
	SD      float64   `json:"sd"` // standard deviation of the samples
	P95     float64   `json:"p95"`
	P99     float64   `json:"p99"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	// Interval: there are enough samples for one of 95 %.
	Interval bool      `json:"interval"`
	Samples  []float64 `json:"samples"` // in the order of the runs
}

// Cell is a cell of the experiment.
type Cell struct {
	Name   string      `json:"name"`
	Values plan.Values `json:"values"`
	Runs   int         `json:"runs"`            // that count
	Failed int         `json:"failed"`          // of them
	Noisy  int         `json:"noisy"`           // that the host disturbed, and were done again
	Lacks  string      `json:"lacks,omitempty"` // of the kernel, for which it was skipped
	Series []Series    `json:"series"`
}

// Find is a cell's series of a measure.
func (c *Cell) Find(measure string) *Series {
	for i := range c.Series {
		if c.Series[i].Measure == measure {
			return &c.Series[i]
		}
	}
	return nil
}

func seriesOf(name string, samples []float64) Series {
	m, _ := plan.FindMeasure(name)
	s := Series{Measure: name, Unit: m.Unit, N: len(samples), Samples: samples}
	all := benchmath.NewSample(slices.Clone(samples), &benchmath.DefaultThresholds)
	summary := benchmath.AssumeNothing.Summary(all, confidence)
	s.Median, s.Low, s.High = summary.Center, summary.Lo, summary.Hi
	s.Interval = !math.IsInf(s.Low, 0) && !math.IsInf(s.High, 0) && summary.Confidence >= confidence
	if !s.Interval {
		s.Low, s.High = s.Median, s.Median
	}
	sorted := stats.Sample{Xs: slices.Sorted(slices.Values(samples)), Sorted: true}
	s.Mean, s.P95, s.P99 = sorted.Mean(), sorted.Quantile(0.95), sorted.Quantile(0.99)
	if s.N > 1 {
		s.SD = sorted.StdDev()
	}
	s.Min, s.Max = sorted.Bounds()
	return s
}

const confidence = 0.95

// Statistic is one of plan.Statistics.
func (s *Series) Statistic(name string) float64 {
	switch name {
	case "mean":
		return s.Mean
	case "p95":
		return s.P95
	case "p99":
		return s.P99
	case "min":
		return s.Min
	case "max":
		return s.Max
	}
	return s.Median
}

// Enough tells whether half of the width of the median's interval is at most that
// part of the median: see engine.Options.
func Enough(samples []float64, within float64) bool {
	if len(samples) == 0 {
		return false
	}
	s := seriesOf("", samples)
	return s.Interval && (s.High-s.Low)/2 <= within*math.Abs(s.Median)
}

// namesOf are the cells in the order of the plan, and those that a matrix has made
// of them in the order of their runs.
func namesOf(r *engine.Results) []plan.Values {
	all, seen := slices.Clone(r.Plan.Cells), map[string]bool{}
	for _, c := range all {
		seen[c.String()] = true
	}
	for _, one := range r.Records {
		if !seen[one.Cell] {
			seen[one.Cell] = true
			all = append(all, one.Values)
		}
	}
	return all
}

// cellsOf sorts records by cell.
func cellsOf(r *engine.Results) []Cell {
	var out []Cell
	for _, values := range namesOf(r) {
		c := Cell{Name: values.String(), Values: values}
		samples := map[string][]float64{}
		for _, one := range r.Records {
			if one.Cell != c.Name {
				continue
			}
			switch one.Kind {
			case engine.Noisy:
				c.Noisy++
				continue
			case engine.Skipped:
				c.Lacks = one.Lacks
				continue
			case engine.WarmUp:
				continue
			}
			c.Runs++
			if one.Failure != nil {
				c.Failed++
			}
			for name, v := range one.Measures {
				// A run that failed says nothing but that, and what it left.
				if one.Failure == nil || name == "failed" || name == "leaks" {
					samples[name] = append(samples[name], v)
				}
			}
		}
		for _, name := range slices.Sorted(mapKeys(samples)) {
			c.Series = append(c.Series, seriesOf(name, samples[name]))
		}
		if c.Runs > 0 || c.Noisy > 0 || c.Lacks != "" {
			out = append(out, c)
		}
	}
	return out
}
