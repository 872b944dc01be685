package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Step is one thing that is done with the container.
type Step struct {
	Verb    string   // see Verbs
	Options Options  // of the verbs that take flags
	Args    []string // of exec: the program; of wait: the time; of expect: see Options
	Times   int      // of repeat
	After   Duration // of kill
	Steps   []Step   // of repeat; of kill the one that is killed
	Where   Values   // only in cells with these values
	Line    int      // in the file
}

// Verb is a word for a step.
type Verb struct {
	Name    string
	Command string // of crucible, whose flags are the step's options; "" if it takes none
	What    string
}

// Verbs are the words for steps.
func Verbs() []Verb {
	return []Verb{
		{"run", "", "start the container, and wait until it is ready"},
		{"wait", "", "let a time pass: {wait: 500ms}"},
		{"checkpoint", "checkpoint", "write an image; without leave-running the container stops"},
		{"restore", "restore", "bring the container back from the last image"},
		{"clone", "restore", "restore as many containers as count says from the last image, beside the container, and delete them when the run ends"},
		{"exec", "", "execute a program in the container: {exec: [PROGRAM, ARGUMENT]}"},
		{"check", "", "have the built-in program compare all it holds with what it had"},
		{"expect", "", "fail unless: {expect: {log: TEXT, status: running|frozen|stopped}}, the status within 5 s"},
		{"freeze", "", "freeze the container"},
		{"thaw", "", "thaw it"},
		{"stop", "stop", "end the container"},
		{"kill", "", "kill a command in the middle: {kill: {after: 8ms, step: {checkpoint: {leave-running: true}}}}; it may be done before that, or fail"},
		{"repeat", "", "do steps several times: {repeat: {times: 10, steps: [...]}}"},
	}
}

func verb(name string) (Verb, bool) {
	for _, v := range Verbs() {
		if v.Name == name {
			return v, true
		}
	}
	return Verb{}, false
}

func verbNames() []string {
	var all []string
	for _, v := range Verbs() {
		all = append(all, v.Name)
	}
	return all
}

// In tells whether the step is done in a cell.
func (s Step) In(c Values) bool { return c.has(s.Where) }

func (s Step) String() string {
	text := s.Verb
	if len(s.Args) > 0 {
		text += " " + strings.Join(s.Args, " ")
	}
	if s.Verb == "kill" {
		text += fmt.Sprintf(" %s after %v", s.Steps[0], s.After)
	}
	if len(s.Options) > 0 {
		text += " " + strings.Join(s.Options.Flags(), " ")
	}
	return text
}

// UnmarshalYAML reads a verb, or a map of one verb to what it takes, and where.
func (s *Step) UnmarshalYAML(node ast.Node) error {
	s.Line = node.GetToken().Position.Line
	pairs, ok := mapping(node)
	if !ok {
		return s.read(node, scalar(node), nil)
	}
	var rest []*ast.MappingValueNode
	for _, p := range pairs {
		if scalar(p.Key) != "where" {
			rest = append(rest, p)
		} else if err := into(p.Value, &s.Where); err != nil {
			return err
		}
	}
	if len(rest) != 1 {
		return at(node, errors.New("a step is one verb, with what it takes, and perhaps where"))
	}
	return s.read(rest[0].Key, scalar(rest[0].Key), rest[0].Value)
}

func (s *Step) read(key ast.Node, name string, value ast.Node) error {
	v, ok := verb(name)
	if !ok {
		return at(key, unknown("verb", name, verbNames()))
	}
	s.Verb = name
	if value != nil && value.Type() == ast.NullType {
		value = nil
	}
	switch {
	case name == "wait":
		return s.readWait(key, value)
	case name == "exec":
		if value == nil {
			return at(key, errors.New("exec needs a program: [PROGRAM, ARGUMENT]"))
		}
		return into(value, &s.Args)
	case name == "repeat":
		return s.readRepeat(key, value)
	case name == "kill":
		return s.readKill(key, value)
	case value == nil:
		return nil
	case name == "expect" || v.Command != "":
		return into(value, &s.Options)
	}
	return at(value, fmt.Errorf("%s takes nothing", name))
}

func (s *Step) readWait(key, value ast.Node) error {
	if value == nil {
		return at(key, errors.New("wait needs a time: {wait: 500ms}"))
	}
	var d Duration
	if err := into(value, &d); err != nil {
		return err
	}
	s.Args = []string{d.String()}
	return nil
}

func (s *Step) readRepeat(key, value ast.Node) error {
	var r struct {
		Times int    `yaml:"times"`
		Steps []Step `yaml:"steps"`
	}
	if value != nil {
		if err := into(value, &r); err != nil {
			return err
		}
	}
	if r.Times < 1 || len(r.Steps) == 0 {
		return at(key, errors.New("repeat needs times, and steps: {times: 10, steps: [...]}"))
	}
	s.Times, s.Steps = r.Times, r.Steps
	return nil
}

func (s *Step) readKill(key, value ast.Node) error {
	var k struct {
		After *Duration `yaml:"after"`
		Step  *Step     `yaml:"step"`
	}
	if value != nil {
		if err := into(value, &k); err != nil {
			return err
		}
	}
	if k.After == nil || k.Step == nil || k.Step.Verb != "checkpoint" && k.Step.Verb != "restore" {
		return at(key, errors.New("kill needs after, and a step that is a checkpoint or a restore: {after: 8ms, step: checkpoint}"))
	}
	s.After, s.Steps = *k.After, []Step{*k.Step}
	return nil
}

// Option is a flag of a command, without its dashes. A flag that is given
// several times has several values.
type Option struct {
	Name   string
	Values []string
	key    ast.Node
}

// Options are in the order of the file.
type Options []Option

// UnmarshalYAML reads a map of names to scalars or lists of scalars.
func (o *Options) UnmarshalYAML(node ast.Node) error {
	pairs, ok := mapping(node)
	if !ok {
		return at(node, errors.New("expected names and values"))
	}
	for _, p := range pairs {
		one := Option{Name: scalar(p.Key), key: p.Key}
		if list, ok := p.Value.(*ast.SequenceNode); ok {
			for _, v := range list.Values {
				one.Values = append(one.Values, scalar(v))
			}
		} else {
			one.Values = []string{scalar(p.Value)}
		}
		*o = append(*o, one)
	}
	return nil
}

// Get is an option's first value.
func (o Options) Get(name string) string {
	for _, one := range o {
		if one.Name == name && len(one.Values) > 0 {
			return one.Values[0]
		}
	}
	return ""
}

// Flags are the options as a command line has them.
func (o Options) Flags() []string {
	var all []string
	for _, one := range o {
		for _, v := range one.Values {
			all = append(all, "--"+one.Name+"="+v)
		}
	}
	return all
}

func (o Options) check(of string, known []string) error {
	for _, one := range o {
		if !slices.Contains(known, one.Name) {
			return at(one.key, unknown("option of "+of, one.Name, known))
		}
	}
	return nil
}
