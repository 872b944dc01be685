package main

import (
	"context"
	"errors"
	"time"
)

// series is all samples of one quantity of one system.
type series struct {
	Section string    `json:"section"`
	What    string    `json:"what"`
	System  string    `json:"system"`
	Unit    string    `json:"unit"`
	Samples []float64 `json:"samples"`
	// Failure is why there are fewer samples than rounds.
	Failure string `json:"failure,omitempty"`
}

// value is one sample of one quantity.
type value struct {
	what string
	unit string
	x    float64
}

func milliseconds(what string, d time.Duration) value {
	return value{what, "ms", float64(d) / float64(time.Millisecond)}
}

// arm is one side of a comparison.
type arm struct {
	system string
	once   func(context.Context) ([]value, error)
}

// results are what a run has found out.
type results struct {
	Machine machine  `json:"machine"`
	Command []string `json:"command"`
	Quick   bool     `json:"quick"`
	Series  []series `json:"series"`
}

// find returns a series, or nil.
func (r *results) find(section, what, system string) *series {
	for i := range r.Series {
		s := &r.Series[i]
		if s.Section == section && s.What == what && s.System == system {
			return s
		}
	}
	return nil
}

func (r *results) add(section, system string, v value) {
	s := r.find(section, v.what, system)
	if s == nil {
		r.Series = append(r.Series, series{Section: section, What: v.what, System: system, Unit: v.unit})
		s = &r.Series[len(r.Series)-1]
	}
	s.Samples = append(s.Samples, v.x)
}

// rounds says how often: so many, after so many that warm up.
type rounds struct{ warm, count int }

// interleave takes one sample of each arm, and again, and again. An arm that
// fails is left out from then on, and its error is kept beside its samples; one
// that cannot do this at all is left out in silence. Ctrl-C ends it all.
func (r *results) interleave(ctx context.Context, section string, n rounds, arms []arm) error {
	failed := map[string]bool{}
	for round := range n.warm + n.count {
		for _, a := range arms {
			if failed[a.system] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			values, err := a.once(ctx)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, errors.ErrUnsupported):
				failed[a.system] = true
			case err != nil:
				failed[a.system] = true
				r.Series = append(r.Series, series{Section: section, System: a.system, Failure: err.Error()})
			case round >= n.warm:
				for _, v := range values {
					r.add(section, a.system, v)
				}
			}
		}
	}
	return nil
}
