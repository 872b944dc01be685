package plan

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Factor is what is varied.
type Factor struct {
	Name   string
	Values []string
}

// Factors are in the order of the file.
type Factors []Factor

// Value is a factor's value in a cell.
type Value struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Values are one value for each factor: a cell.
type Values []Value

// Get is the value of a factor.
func (v Values) Get(name string) (string, bool) {
	for _, one := range v {
		if one.Name == name {
			return one.Value, true
		}
	}
	return "", false
}

// has tells whether all of some values are the cell's.
func (v Values) has(some Values) bool {
	for _, want := range some {
		if value, ok := v.Get(want.Name); !ok || value != want.Value {
			return false
		}
	}
	return true
}

// String names a cell: "memory=64MiB,leave-running=true"; "all" where nothing is
// varied.
func (v Values) String() string {
	var parts []string
	for _, one := range v {
		parts = append(parts, one.Name+"="+one.Value)
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, ",")
}

// UnmarshalYAML reads lists of scalars by name.
func (f *Factors) UnmarshalYAML(node ast.Node) error {
	pairs, ok := mapping(node)
	if !ok {
		return at(node, errors.New("expected names and lists of values"))
	}
	for _, p := range pairs {
		list, ok := p.Value.(*ast.SequenceNode)
		if !ok || len(list.Values) == 0 {
			return at(p.Key, fmt.Errorf("factor %q: expected a list of values", scalar(p.Key)))
		}
		one := Factor{Name: scalar(p.Key)}
		seen := map[string]bool{}
		for _, v := range list.Values {
			if _, nested := mapping(v); nested || v.Type() == ast.SequenceType {
				return at(v, fmt.Errorf("factor %q: a value is a number or a word", one.Name))
			}
			if seen[scalar(v)] {
				return at(v, fmt.Errorf("factor %q: the value %s is there twice", one.Name, scalar(v)))
			}
			seen[scalar(v)] = true
			one.Values = append(one.Values, scalar(v))
		}
		*f = append(*f, one)
	}
	return nil
}

// UnmarshalYAML reads scalars by name.
func (v *Values) UnmarshalYAML(node ast.Node) error {
	pairs, ok := mapping(node)
	if !ok {
		return at(node, errors.New("expected factors and their values"))
	}
	for _, p := range pairs {
		*v = append(*v, Value{scalar(p.Key), scalar(p.Value)})
	}
	return nil
}

// all are all combinations of the factors' values, the last factor varying
// first.
func (f Factors) all() []Values {
	cells := []Values{nil}
	for _, one := range f {
		var next []Values
		for _, c := range cells {
			for _, value := range one.Values {
				next = append(next, append(append(Values(nil), c...), Value{one.Name, value}))
			}
		}
		cells = next
	}
	return cells
}

// order gives a listed cell's values in the order of the factors.
func (f Factors) order(listed Values) (Values, error) {
	var out Values
	for _, one := range f {
		value, ok := listed.Get(one.Name)
		if !ok {
			return nil, fmt.Errorf("cell %s: no value for factor %q", listed, one.Name)
		}
		out = append(out, Value{one.Name, value})
	}
	for _, one := range listed {
		if _, ok := out.Get(one.Name); !ok {
			return nil, fmt.Errorf("cell %s: %w", listed, unknown("factor", one.Name, f.names()))
		}
	}
	return out, nil
}

func (f Factors) names() []string {
	var all []string
	for _, one := range f {
		all = append(all, one.Name)
	}
	return all
}
