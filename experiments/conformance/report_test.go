package conformance

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"crucible/experiments/workload"
)

func outcome(name string, v workload.Verdict, reason string) Outcome {
	return Outcome{Result: workload.Result{Case: name, Verdict: v, Step: workload.StepCheck, Reason: reason, Took: time.Second}}
}

func sample() *Report {
	return &Report{
		Machine: "KVM", Cases: []string{"a", "b", "c"},
		Answers: []Answer{
			{Kernel: "old", Release: "6.1.0", CRIU: "4.2.1", Cgroup: "v2", Outcomes: []Outcome{
				outcome("a", workload.Pass, ""), outcome("b", workload.Skip, "no <feature>"), outcome("c", workload.Pass, ""),
			}},
			{Kernel: "new", CRIU: "4.2.1", Cgroup: "v2", Fault: "does not boot", Outcomes: []Outcome{
				outcome("a", workload.Fail, "differs & more #1"),
			}},
		},
	}
}

func TestExitCode(t *testing.T) {
	pass, fail, skip := outcome("a", workload.Pass, ""), outcome("b", workload.Fail, "x"), outcome("c", workload.Skip, "x")
	for _, test := range []struct {
		name    string
		answers []Answer
		want    int
	}{
		{"all pass", []Answer{{Outcomes: []Outcome{pass, skip}}}, Good},
		{"one fails", []Answer{{Outcomes: []Outcome{pass, fail}}}, Bad},
		{"only skips", []Answer{{Outcomes: []Outcome{skip}}}, Untested},
		{"does not boot", []Answer{{Fault: "x"}}, Untested},
		{"broke off", []Answer{{Outcomes: []Outcome{pass}, Fault: "x"}}, Untested},
		{"failed, then broke off", []Answer{{Outcomes: []Outcome{fail}, Fault: "x"}}, Bad},
		{"one of two does not boot", []Answer{{Outcomes: []Outcome{pass}}, {Fault: "x"}}, Untested},
		{"one of two fails", []Answer{{Fault: "x"}, {Outcomes: []Outcome{fail}}}, Bad},
	} {
		if got := (&Report{Answers: test.answers}).ExitCode(); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

func TestKTAP(t *testing.T) {
	var b strings.Builder
	if err := sample().WriteKTAP(&b); err != nil {
		t.Fatal(err)
	}
	want := `KTAP version 1
1..2
  KTAP version 1
  1..3
  ok 1 a
  ok 2 b # SKIP no <feature>
  ok 3 c
ok 1 old criu-4.2.1 cgroup-v2
  KTAP version 1
  1..3
  # check: differs & more \#1
  not ok 1 a
  # does not boot
  not ok 2 b # SKIP not tested
  # does not boot
  not ok 3 c # SKIP not tested
not ok 2 new criu-4.2.1 cgroup-v2
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	one := sample()
	one.Answers = one.Answers[:1]
	b.Reset()
	if err := one.WriteKTAP(&b); err != nil {
		t.Fatal(err)
	}
	if want := "KTAP version 1\n1..3\nok 1 a\nok 2 b # SKIP no <feature>\nok 3 c\n"; b.String() != want {
		t.Errorf("of one target: %q", b.String())
	}
}

func TestMap(t *testing.T) {
	var b strings.Builder
	if err := sample().WriteMap(&b, false); err != nil {
		t.Fatal(err)
	}
	want := ` 1  old (6.1.0), CRIU 4.2.1, cgroup v2: 2 pass, 0 fail, 1 skip, 0.0 s
 2  new, CRIU 4.2.1, cgroup v2: 0 pass, 1 fail, 0 skip; not tested to the end: does not boot, 0.0 s

   1  2
a  +  X
b  -  ?
c  +  ?

+ pass  X fail  - skip  ? not tested
a [2] fail: differs & more #1
b [1] skip: no <feature>
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	if err := sample().WriteMap(&b, true); err != nil || !strings.Contains(b.String(), "\x1b[31mX\x1b[0m") {
		t.Errorf("no red X on a terminal: %v, %q", err, b.String())
	}
}

// The drawing is well-formed XML with a place for each case and target.
func TestSVG(t *testing.T) {
	var b strings.Builder
	if err := sample().WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	classes := map[string]int{}
	d := xml.NewDecoder(strings.NewReader(b.String()))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			for _, a := range e.Attr {
				if a.Name.Local == "class" {
					classes[a.Value]++
				}
			}
		}
	}
	if diff := cmp.Diff(map[string]int{"pass": 2, "skip": 1, "fail": 1, "none": 2}, classes); diff != "" {
		t.Error(diff)
	}
}

func TestHTML(t *testing.T) {
	var b strings.Builder
	if err := sample().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg ", "no &lt;feature&gt;", "differs &amp; more", "does not boot"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, never := range []string{"src=", "href=", "url(", "@import"} {
		if strings.Contains(b.String(), never) {
			t.Errorf("the page needs something from elsewhere: %q", never)
		}
	}
}

func TestCompare(t *testing.T) {
	r := sample()
	r.Answers[1].Outcomes = append(r.Answers[1].Outcomes, outcome("b", workload.Skip, "no"))
	var lines []string
	worse := 0
	for _, c := range Compare(r.Cases, &r.Answers[0], &r.Answers[1]) {
		lines = append(lines, c.String())
		if c.Worse() {
			worse++
		}
	}
	want := []string{"a: pass -> fail: differs & more #1", "c: pass -> not tested"}
	if diff := cmp.Diff(want, lines); diff != "" || worse != 1 {
		t.Errorf("%d worse, %s", worse, diff)
	}
}
