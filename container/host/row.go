package host

import (
	"context"
	"encoding"
	"fmt"
)

// State is what a probe found out.
type State int

const (
	Unknown State = iota // could not tell; Detail says why
	Good
	Missing
)

var _ encoding.TextMarshaler = State(0)

func (s State) String() string {
	switch s {
	case Good:
		return "good"
	case Missing:
		return "missing"
	}
	return "unknown"
}

// MarshalText makes a state its word in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the word.
func (s *State) UnmarshalText(text []byte) error {
	for _, state := range []State{Unknown, Good, Missing} {
		if state.String() == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("state %q: want good, missing or unknown", text)
}

// A Row is one thing that matters, and whether this host has it.
type Row struct {
	Group string `json:"group"`
	Name  string `json:"name"`
	State State  `json:"state"`
	// Detail is what was seen: a number, a list, or the kernel's error.
	Detail string `json:"detail,omitempty"`
	// Costs is what does not work, or works worse. A good row can have costs.
	Costs string `json:"costs,omitempty"`
	// Remedy is what to do about it, if something can be done.
	Remedy string `json:"remedy,omitempty"`
	// Required: without it no container can be checkpointed and restored.
	Required bool `json:"required,omitempty"`
}

// Options for Probe. The zero Options works.
type Options struct {
	// Root is the directory in which containers are kept; empty means that
	// nothing is asked about it. It need not exist.
	Root string
}

// Probe asks the kernel everything, one question after the other; it takes
// some 20 ms. When ctx ends, the remaining rows are unknown.
func Probe(ctx context.Context, o Options) []Row {
	var rows []Row
	for _, p := range probes(o) {
		rows = append(rows, p.run(ctx))
	}
	return rows
}

// A probe is a question to the kernel, and what to say when the answer is not
// good.
type probe struct {
	group, name string
	required    bool
	ask         func() answer
	costs       string
	remedy      string
}

// An answer's costs and remedy stand instead of the probe's where they are set.
type answer struct {
	state         State
	detail        string
	costs, remedy string
}

func (p probe) run(ctx context.Context) Row {
	row := Row{Group: p.group, Name: p.name, Required: p.required}
	if err := ctx.Err(); err != nil {
		row.Detail = "not asked: " + err.Error()
		return row
	}
	a := p.ask()
	row.State, row.Detail, row.Costs, row.Remedy = a.state, a.detail, a.costs, a.remedy
	if a.state == Good {
		return row
	}
	if row.Costs == "" {
		row.Costs = p.costs
	}
	if row.Remedy == "" {
		row.Remedy = p.remedy
	}
	return row
}

func probes(o Options) []probe {
	var all []probe
	for _, group := range [][]probe{
		rightsProbes(), kernelProbes(), memoryProbes(), namespaceProbes(),
		filesystemProbes(o), networkProbes(), cgroupProbes(), settingProbes(),
	} {
		all = append(all, group...)
	}
	return all
}
