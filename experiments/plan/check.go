package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// check looks for what the form of the file does not say.
func (p *Plan) check(f *File) error {
	for _, c := range []struct {
		wrong bool
		what  string
	}{
		{strings.TrimSpace(f.Question) == "", "question: say what is to be found out"},
		{len(f.Steps) == 0, "steps: nothing is to be done"},
		{f.Workload.kinds() != 1, "workload: needs one of program, builtin and case"},
		{f.Repetitions.Runs < 1 || f.Repetitions.WarmUp < 0, "repetitions: runs must be 1 or more, warm-up 0 or more"},
		{f.Workload.Client != "" && (f.Workload.Builtin == nil || f.Workload.Builtin.Port == 0), "workload: client needs builtin with a port"},
		{f.Workload.Client != "" && f.Workload.Client != "tcp", "workload: client: tcp is the only one"},
		{f.Workload.Client != "" && f.Container.Get("net") != "bridge", "workload: client needs a container on the bridge: container: {net: bridge}"},
	} {
		if c.wrong {
			return errors.New(c.what)
		}
	}
	if err := f.Container.check("crucible run", p.flags["run"]); err != nil {
		return err
	}
	if f.Steps[0].Verb != "run" {
		return fmt.Errorf("steps: the first one must be run")
	}
	if err := p.checkSteps(f, f.Steps); err != nil {
		return err
	}
	return checkNumbers(f)
}

func (w Workload) kinds() (n int) {
	for _, is := range []bool{w.Builtin != nil, len(w.Program) > 0, w.Case != ""} {
		if is {
			n++
		}
	}
	return n
}

func checkNumbers(f *File) error {
	for _, name := range f.Measures {
		if _, ok := FindMeasure(name); !ok {
			return unknown("measure", name, measureNames())
		}
	}
	for i := range f.Hold {
		if err := f.Hold[i].check(); err != nil {
			return fmt.Errorf("hold: %w", err)
		}
		for _, v := range f.Hold[i].Where {
			if err := f.Factors.has(v); err != nil {
				return fmt.Errorf("hold: where: %w", err)
			}
		}
	}
	if u := f.Repetitions.Until; u != nil {
		if _, ok := FindMeasure(u.Measure); !ok {
			return unknown("measure", u.Measure, measureNames())
		}
		if u.Within <= 0 || u.Most < f.Repetitions.Runs {
			return errors.New("repetitions: until: within must be above 0, and most no less than runs")
		}
	}
	return nil
}

// has refuses a condition that no cell can meet.
func (f Factors) has(v Value) error {
	for _, one := range f {
		if one.Name != v.Name {
			continue
		}
		for _, value := range one.Values {
			if value == v.Value {
				return nil
			}
		}
		return unknown("value of "+v.Name, v.Value, one.Values)
	}
	return unknown("factor", v.Name, f.names())
}

func (p *Plan) checkSteps(f *File, steps []Step) error {
	for i, s := range steps {
		v, _ := verb(s.Verb)
		switch {
		case s.Verb == "run" && (i > 0 || f.Steps[0].Line != s.Line):
			return p.atStep(s, errors.New("run comes first, and once"))
		case s.Verb == "check" && len(f.Workload.Program) > 0:
			return p.atStep(s, errors.New("check is for the built-in workload and for cases: use expect or exec"))
		case s.Verb == "expect":
			if err := s.Options.check("expect", []string{"log", "status"}); err != nil {
				return err
			}
		case s.Verb == "clone":
			if n, err := strconv.Atoi(s.Options.Get("count")); err != nil || n < 1 {
				return p.atStep(s, errors.New("clone needs a count: {clone: {count: 10}}"))
			}
		}
		for _, one := range s.Where {
			if err := f.Factors.has(one); err != nil {
				return p.atStep(s, fmt.Errorf("where: %w", err))
			}
		}
		if v.Command != "" {
			if err := s.Options.check("crucible "+v.Command, p.flags[v.Command]); err != nil {
				return err
			}
		}
		if err := p.checkSteps(f, s.Steps); err != nil {
			return err
		}
	}
	return nil
}

// stepError is what is wrong with a step, by its line.
type stepError struct {
	line int
	err  error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func (p *Plan) atStep(s Step, err error) error { return &stepError{s.Line, err} }
