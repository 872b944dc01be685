package plan

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var flags = Flags{"run": {"net", "memory"}, "checkpoint": {"leave-running", "tcp-close"}, "restore": {"count", "lazy", "name"}, "stop": {"grace"}}

const good = `
question: How long does it stand still?
workload:
  builtin: {memory: "${memory}", threads: 3, port: 7000}
  client: tcp
container:
  net: bridge
factors:
  memory: [1MiB, 64MiB]
  leave: [true, false]
steps:
  - run
  - wait: 20ms
  - checkpoint: {leave-running: "${leave}"}
  - repeat:
      times: 2
      steps:
        - exec: [true, "${memory} of it"]
  - {check: , where: {leave: true}}
repetitions: {runs: 3, warm-up: 1}
measures: [frozen, "phase:checkpoint/freeze"]
hold:
  - {measure: frozen, at-most: 20ms, where: {memory: 1MiB}}
`

func TestParse(t *testing.T) {
	p, err := Parse("e.yaml", []byte(good), flags)
	if err != nil {
		t.Fatal(err)
	}
	var cells []string
	for _, c := range p.Cells {
		cells = append(cells, c.String())
	}
	want := []string{"memory=1MiB,leave=true", "memory=1MiB,leave=false", "memory=64MiB,leave=true", "memory=64MiB,leave=false"}
	if d := cmp.Diff(want, cells); d != "" {
		t.Error(d)
	}
	f, err := p.In(p.Cells[3])
	if err != nil {
		t.Fatal(err)
	}
	if f.Workload.Builtin.Memory != 64<<20 || f.Workload.Builtin.Processes != 1 {
		t.Errorf("%+v", f.Workload.Builtin)
	}
	if got := f.Steps[2].String(); got != "checkpoint --leave-running=false" {
		t.Error(got)
	}
	if got := f.Steps[3].Steps[0].Args; got[0] != "true" || got[1] != "64MiB of it" {
		t.Error(got)
	}
	if s := f.Steps[4]; !s.In(p.Cells[0]) || s.In(p.Cells[1]) || !f.Steps[0].In(p.Cells[1]) {
		t.Error("where of a step")
	}
	if !f.Hold[0].Covers(p.Cells[0]) || f.Hold[0].Covers(p.Cells[2]) {
		t.Error("where")
	}
	if most, least := f.Hold[0].Limits(); most == nil || *most != 0.02 || least != nil {
		t.Error(most, least)
	}
}

// Each fault of a file is found, with its place and the nearest right name.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ from, to, want, hint string }{
		{"question:", "qestion:", `e.yaml:2:1: unknown key "qestion"`, `did you mean "question"?`},
		{"threads: 3", "treads: 3", `e.yaml:4:34: unknown key "treads"`, `did you mean "threads"?`},
		{"threads: 3", "threads: many", "e.yaml:4:43: expected a whole number", ""},
		{"leave-running:", "leave-runing:", `e.yaml:14:18: unknown option of crucible checkpoint "leave-runing"`, `did you mean "leave-running"?`},
		{"- checkpoint", "- checkpiont", `e.yaml:14:5: unknown verb "checkpiont"`, `did you mean "checkpoint"?`},
		{"net: bridge", "nett: bridge", `e.yaml: workload: client needs`, ""},
		{"wait: 20ms", "wait: soon", `e.yaml:13:11: "soon" is no time`, ""},
		{`"${memory}"`, `"${memroy}"`, `e.yaml:4:21: unknown factor "memroy"`, `did you mean "memory"?`},
		{`"${memory}"`, `"${memory"`, `e.yaml:4:21: ${ without a }`, ""},
		{"factors:\n", "factors:\n  idle: [1]\n", `factor "idle" is not used`, ""},
		{"1MiB, 64MiB", "1MiB, 64MB", `e.yaml:4:21: "64MB" is no size`, ""},
		{"1MiB, 64MiB", "1MiB, 1MiB", `e.yaml:9:18: factor "memory": the value 1MiB is there twice`, ""},
		{"at-most: 20ms", "at-most: 20", `hold: median of frozen: "20" is no time`, ""},
		{"{measure: frozen,", "{measure: frosen,", `hold: unknown measure "frosen"`, `did you mean "frozen"?`},
		{"where: {memory: 1MiB}", "where: {memory: 2MiB}", `hold: where: unknown value of memory "2MiB"`, `did you mean "1MiB"?`},
		{"measures: [frozen,", "measures: [frozn,", `unknown measure "frozn"`, `did you mean "frozen"?`},
		{"  - run\n", "", "the first one must be run", ""},
		{"  - {check: , where: {leave: true}}\n", "  - run\n", "e.yaml:19:1: run comes first", ""},
		{"- {check: , where: {leave: true}}\n", "- kill: {after: 1ms, step: check}\n", "e.yaml:19:5: kill needs after, and a step", ""},
		{"where: {leave: true}", "where: {leave: no}", `unknown value of leave "no"`, ""},
		{"builtin: {memory", "case: pipe\n  builtin: {memory", "needs one of program", ""},
		{"times: 2", "times: 0", "repeat needs times", ""},
		{"runs: 3", "runs: -1", "runs must be 1 or more", ""},
		{"builtin: {", "builtin: [", "", ""},
		{"builtin: {memory: \"${memory}\", threads: 3, port: 7000}", "builtin: [\"${memory}\"]", "e.yaml:4:12: sequence was used where mapping is expected", ""},
	} {
		source := strings.Replace(good, c.from, c.to, 1)
		if source == good {
			t.Fatalf("%q is not there", c.from)
		}
		_, err := Parse("e.yaml", []byte(source), flags)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Error(), c.want) || !strings.Contains(e.Hint(), c.hint) {
			t.Errorf("%s -> %s: %v, hint %q; want %q, %q", c.from, c.to, err, hintOf(e), c.want, c.hint)
		}
	}
}

func hintOf(e *Error) string {
	if e == nil {
		return ""
	}
	return e.Hint()
}

func TestCells(t *testing.T) {
	source := strings.Replace(good, "steps:\n  - run", "cells:\n  - {leave: true, memory: 64MiB}\nsteps:\n  - run", 1)
	p, err := Parse("e.yaml", []byte(source), flags)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Cells) != 1 || p.Cells[0].String() != "memory=64MiB,leave=true" {
		t.Error(p.Cells)
	}
	for _, bad := range []string{"{leave: true}", "{leave: true, memory: 1MiB, more: 2}"} {
		if _, err := Parse("e.yaml", []byte(strings.Replace(source, "{leave: true, memory: 64MiB}", bad, 1)), flags); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "4096": 4096, "1.5MiB": 3 << 19, "2 GiB": 2 << 30, "3B": 3} {
		var s Size
		if err := s.set(text); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	if s := Size(3 << 19).String(); s != "1.5MiB" {
		t.Error(s)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("question: &a [*a]\nsteps: *a\n"))
	f.Fuzz(func(t *testing.T, source []byte) {
		p, err := Parse("e.yaml", source, flags)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		if err == nil && (len(p.Cells) == 0 || p.File == nil) {
			t.Fatal("no cells")
		}
	})
}
