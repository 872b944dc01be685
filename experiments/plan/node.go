package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"crucible/experiments/spell"
)

// placed is an error with its place in the file.
type placed struct {
	where *token.Token
	err   error
}

func (e *placed) Error() string { return e.err.Error() }
func (e *placed) Unwrap() error { return e.err }

func at(node ast.Node, err error) error {
	if node == nil {
		return err
	}
	return &placed{node.GetToken(), err}
}

// nameError is a name that does not exist, and the nearest one that does.
type nameError struct {
	kind, name, nearest string
	known               []string
}

func unknown(kind, name string, known []string) error {
	return &nameError{kind: kind, name: name, nearest: nearest(name, known), known: known}
}

func (e *nameError) Error() string { return fmt.Sprintf("unknown %s %q", e.kind, e.name) }

func (e *nameError) Hint() string {
	if e.nearest != "" {
		return fmt.Sprintf("did you mean %q?", e.nearest)
	}
	return "one of: " + strings.Join(e.known, ", ")
}

// nearest is the known name that takes the fewest changes to get to, if they
// are few.
func nearest(name string, known []string) string {
	best := slices.MinFunc(append([]string{""}, known...), func(a, b string) int {
		return cmp.Compare(spell.Distance(name, a), spell.Distance(name, b))
	})
	if spell.Distance(name, best) > max(1, len(name)/3) {
		return ""
	}
	return best
}

// mapping is a node's pairs, if it is a map.
func mapping(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// scalar is the text of a node that has no others in it.
func scalar(node ast.Node) string {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return strings.TrimSuffix(n.Value.Value, "\n")
	case *ast.NullNode:
		return ""
	}
	return node.GetToken().Value
}

// into decodes a node strictly; the error has its place.
func into(node ast.Node, v any) error {
	err := yaml.NodeToValue(node, v, yaml.Strict())
	var known *placed
	if err == nil || errors.As(err, &known) {
		return err
	}
	var theirs yaml.Error
	if errors.As(err, &theirs) {
		return &placed{theirs.GetToken(), err}
	}
	return at(node, err)
}

// UnmarshalYAML reads a size.
func (s *Size) UnmarshalYAML(node ast.Node) error {
	return atIf(node, s.set(scalar(node)))
}

// UnmarshalYAML reads a duration.
func (d *Duration) UnmarshalYAML(node ast.Node) error {
	return atIf(node, d.set(scalar(node)))
}

func atIf(node ast.Node, err error) error {
	if err == nil {
		return nil
	}
	return at(node, err)
}
