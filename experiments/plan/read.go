package plan

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Flags are the names of the flags of crucible's commands, which steps and the
// container section use: they are known to the command line only.
type Flags map[string][]string

// Plan is an experiment file that has been read.
type Plan struct {
	Path   string
	Source []byte
	File   *File    // with the first cell's values
	Cells  []Values // what is run
	flags  Flags
}

// sizeLimit of a file, in bytes: written by people.
const sizeLimit = 1 << 20

// cellLimit is how many cells a file may have.
const cellLimit = 10000

// Read reads an experiment file and checks all of it, in each cell. The error is
// an [Error].
func Read(path string, flags Flags) (*Plan, error) {
	f, err := os.Open(path)
	if err != nil {
		if cause := (*os.PathError)(nil); errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, &Error{Path: path, Cause: err.Error(), Remedy: "name a file that says what to ask: see crucible experiment --help"}
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(&limited{f, sizeLimit}); err != nil {
		return nil, &Error{Path: path, Cause: err.Error()}
	}
	return Parse(path, b.Bytes(), flags)
}

// Parse is Read of a file's content.
func Parse(path string, source []byte, flags Flags) (*Plan, error) {
	p := &Plan{Path: path, Source: source, flags: flags}
	err := p.parse()
	if err != nil {
		return nil, p.failure(err)
	}
	return p, nil
}

func (p *Plan) parse() error {
	root, err := p.tree()
	if err != nil {
		return err
	}
	var varied struct {
		Factors Factors  `yaml:"factors"`
		Cells   []Values `yaml:"cells"`
	}
	if err := only(root, &varied); err != nil {
		return err
	}
	p.Cells = varied.Factors.all()
	if len(varied.Cells) > 0 {
		p.Cells = nil
		for _, c := range varied.Cells {
			ordered, err := varied.Factors.order(c)
			if err != nil {
				return err
			}
			p.Cells = append(p.Cells, ordered)
		}
	}
	if len(p.Cells) > cellLimit {
		return fmt.Errorf("%d cells: more than %d", len(p.Cells), cellLimit)
	}
	used := map[string]bool{}
	for _, c := range p.Cells {
		f, err := p.in(c, used)
		if err != nil {
			return err
		}
		p.File = cmp.Or(p.File, f)
	}
	for _, f := range varied.Factors {
		if !used[f.Name] {
			return fmt.Errorf("factor %q is not used: put ${%s} where it belongs", f.Name, f.Name)
		}
	}
	return nil
}

// In is the file with a cell's values put in.
func (p *Plan) In(c Values) (*File, error) {
	f, err := p.in(c, map[string]bool{})
	if err != nil {
		return nil, p.failure(err)
	}
	return f, nil
}

func (p *Plan) in(c Values, used map[string]bool) (*File, error) {
	root, err := p.tree()
	if err != nil {
		return nil, err
	}
	pairs, _ := mapping(root)
	for _, pair := range pairs {
		if key := scalar(pair.Key); key == "factors" || key == "cells" {
			continue
		}
		if pair.Value, err = put(pair.Value, c, used); err != nil {
			return nil, err
		}
	}
	var f File
	if err := into(root, &f); err != nil {
		return nil, err
	}
	f.fill()
	markUsed(f.Steps, used)
	return &f, p.check(&f)
}

// markUsed: a factor may do no more than to choose steps.
func markUsed(steps []Step, used map[string]bool) {
	for _, s := range steps {
		for _, v := range s.Where {
			used[v.Name] = true
		}
		markUsed(s.Steps, used)
	}
}

// tree is the file's only document, a map.
func (p *Plan) tree() (ast.Node, error) {
	file, err := parser.ParseBytes(p.Source, 0)
	if err != nil {
		return nil, err
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, errors.New("it is empty, or more than one document")
	}
	root := file.Docs[0].Body
	if _, ok := mapping(root); !ok {
		return nil, at(root, errors.New("expected sections: question, workload, steps"))
	}
	var look plain
	ast.Walk(&look, root)
	return root, look.err
}

// plain looks for what an experiment file has no use for.
type plain struct{ err error }

func (p *plain) Visit(n ast.Node) ast.Visitor {
	switch n.Type() {
	case ast.TagType, ast.AnchorType, ast.AliasType, ast.MergeKeyType:
		p.err = cmp.Or(p.err, at(n, errors.New("tags, anchors and aliases are not for experiment files: write the value out")))
		return nil
	}
	return p
}

// only decodes the sections that v has fields for.
func only(root ast.Node, v any) error {
	err := yaml.NodeToValue(root, v)
	var known *placed
	var theirs yaml.Error
	if err == nil || errors.As(err, &known) || !errors.As(err, &theirs) {
		return err
	}
	return &placed{theirs.GetToken(), err}
}

// put replaces "${NAME}" in all texts below a node.
func put(node ast.Node, c Values, used map[string]bool) (ast.Node, error) {
	switch n := node.(type) {
	case *ast.MappingNode:
		for _, pair := range n.Values {
			if _, err := put(pair, c, used); err != nil {
				return nil, err
			}
		}
	case *ast.MappingValueNode:
		value, err := put(n.Value, c, used)
		n.Value = value
		return n, err
	case *ast.SequenceNode:
		for i := range n.Values {
			value, err := put(n.Values[i], c, used)
			if err != nil {
				return nil, err
			}
			n.Values[i] = value
		}
	case *ast.StringNode:
		return putText(n, c, used)
	}
	return node, nil
}

// putText replaces in a text. What is nothing but one variable becomes what the
// value would be in its place: a number, say.
func putText(n *ast.StringNode, c Values, used map[string]bool) (ast.Node, error) {
	text, rest, whole := "", n.Value, false
	for {
		before, after, ok := strings.Cut(rest, "${")
		if !ok {
			text += rest
			break
		}
		name, behind, ok := strings.Cut(after, "}")
		if !ok {
			return nil, at(n, errors.New("${ without a }"))
		}
		value, ok := c.Get(name)
		if !ok {
			var names []string
			for _, v := range c {
				names = append(names, v.Name)
			}
			return nil, at(n, unknown("factor", name, names))
		}
		used[name] = true
		whole = before == "" && behind == "" && text == ""
		text, rest = text+before+value, behind
	}
	if text == n.Value {
		return n, nil
	}
	if whole {
		file, err := parser.ParseBytes([]byte(text), 0)
		if err == nil && len(file.Docs) == 1 && file.Docs[0].Body != nil {
			if value := file.Docs[0].Body; value.Type() != ast.MappingType && value.Type() != ast.SequenceType {
				value.GetToken().Position = n.GetToken().Position
				return value, nil
			}
		}
	}
	n.Value = text
	n.GetToken().Value = text
	return n, nil
}

// failure gives an error its place in the file.
func (p *Plan) failure(err error) error {
	out := &Error{Path: p.Path, Cause: err.Error()}
	var here *placed
	var step *stepError
	var theirs yaml.Error
	var field *yaml.UnknownFieldError
	var form *yaml.TypeError
	var hinted interface{ Hint() string }
	switch {
	case errors.As(err, &here) && here.where != nil:
		out.Line, out.Column = here.where.Position.Line, here.where.Position.Column
	case errors.As(err, &step):
		out.Line, out.Column = step.line, 1
	case errors.As(err, &theirs) && theirs.GetToken() != nil:
		out.Line, out.Column = theirs.GetToken().Position.Line, theirs.GetToken().Position.Column
	}
	if errors.As(err, &form) {
		out.Cause = "expected " + kindOf(form.DstType)
	} else if errors.As(err, &theirs) {
		out.Cause = theirs.GetMessage()
	}
	if errors.As(err, &field) {
		name := field.Token.Value
		out.Cause = fmt.Sprintf("unknown key %q", name)
		if near := nearest(name, keys(reflect.TypeFor[File](), map[reflect.Type]bool{})); near != "" {
			out.Remedy = fmt.Sprintf("did you mean %q?", near)
		}
	} else if errors.As(err, &hinted) {
		out.Remedy = hinted.Hint()
	}
	return out
}

// kindOf says what was expected, in the words of a file's author.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Uint16, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list"
	}
	return "a map"
}

// keys are all keys of the file's sections.
func keys(t reflect.Type, seen map[reflect.Type]bool) (all []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return nil
	}
	seen[t] = true
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name != "" {
			all = append(append(all, name), keys(t.Field(i).Type, seen)...)
		}
	}
	return all
}

// limited is a reader of a file that may not be longer.
type limited struct {
	f    *os.File
	left int
}

func (l *limited) Read(b []byte) (int, error) {
	n, err := l.f.Read(b)
	if l.left -= n; l.left < 0 {
		return n, fmt.Errorf("longer than %d bytes", sizeLimit)
	}
	return n, err
}
