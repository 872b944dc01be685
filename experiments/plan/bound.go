package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Bound is what must hold for a measure, in each cell or in some.
type Bound struct {
	Measure   string `yaml:"measure" json:"measure" doc:"the measure, by its name"`
	Statistic string `yaml:"statistic,omitempty" json:"statistic,omitempty" enum:"median,mean,p95,p99,min,max" doc:"of the cell's runs (default median)"`
	AtMost    string `yaml:"at-most,omitempty" json:"at-most,omitempty" doc:"a quantity with the measure's unit: 20ms, 3MiB, 0"`
	AtLeast   string `yaml:"at-least,omitempty" json:"at-least,omitempty" doc:"the same, as a lower bound"`
	Where     Values `yaml:"where,omitempty" json:"where,omitempty" doc:"only in cells with these values of factors"`
}

// Statistics are what a bound can be about.
func Statistics() []string { return []string{"median", "mean", "p95", "p99", "min", "max"} }

// Limits are the bound's two quantities in the measure's unit; nil where there is none.
func (b Bound) Limits() (most, least *float64) {
	m, _ := FindMeasure(b.Measure)
	read := func(text string) *float64 {
		v, err := quantity(m.Unit, text)
		if text == "" || err != nil {
			return nil
		}
		return &v
	}
	return read(b.AtMost), read(b.AtLeast)
}

// Covers tells whether the bound is about a cell.
func (b Bound) Covers(c Values) bool { return c.has(b.Where) }

func (b Bound) String() string {
	var parts []string
	if b.AtMost != "" {
		parts = append(parts, "<= "+b.AtMost)
	}
	if b.AtLeast != "" {
		parts = append(parts, ">= "+b.AtLeast)
	}
	text := fmt.Sprintf("%s of %s %s", b.Statistic, b.Measure, strings.Join(parts, " and "))
	if len(b.Where) > 0 {
		text += " where " + b.Where.String()
	}
	return text
}

func (b *Bound) check() error {
	fill(&b.Statistic, Statistics()[0])
	m, ok := FindMeasure(b.Measure)
	switch {
	case !ok:
		return unknown("measure", b.Measure, measureNames())
	case !slices.Contains(Statistics(), b.Statistic):
		return unknown("statistic", b.Statistic, Statistics())
	case b.AtMost == "" && b.AtLeast == "":
		return fmt.Errorf("a bound needs at-most or at-least")
	}
	for _, text := range []string{b.AtMost, b.AtLeast} {
		if text == "" {
			continue
		}
		if _, err := quantity(m.Unit, text); err != nil {
			return fmt.Errorf("%s of %s: %w", b.Statistic, b.Measure, err)
		}
	}
	return nil
}
