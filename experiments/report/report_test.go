package report

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"golang.org/x/perf/benchfmt"

	"crucible/experiments/engine"
	"crucible/experiments/plan"
)

const file = `
question: Is a <b>bigger</b> one slower?
workload: {program: [sleep, "60"]}
factors: {size: [small, "l|arge"]}
steps:
  - run
  - exec: [echo, "${size}"]
measures: [frozen, "phase:checkpoint/freeze"]
hold:
  - {measure: frozen, at-most: 20ms}
  - {measure: frozen, statistic: max, at-least: 1ms, where: {size: small}}
  - {measure: downtime, at-most: 1s}
`

// results are ten runs of each of two cells, one of which fails.
func results(t *testing.T, factor float64) *engine.Results {
	t.Helper()
	p, err := plan.Parse("e.yaml", []byte(file), plan.Flags{})
	if err != nil {
		t.Fatal(err)
	}
	r := &engine.Results{Plan: p, Provenance: engine.Provenance{Kernel: "6.1", Crucible: "test", Processors: 2, Hypervisor: true}}
	number := 0
	for round := 0; round <= 10; round++ {
		for i, c := range p.Cells {
			number++
			one := engine.Record{Number: number, Cell: c.String(), Values: c, Round: round, Kind: engine.Counted, Measures: map[string]float64{
				"frozen": factor * float64(i+1) * (0.01 + float64(round)/1e4), "phase:checkpoint/freeze": 0.001, "failed": 0, "leaks": 0,
			}}
			if round == 0 {
				one.Kind, one.Measures["frozen"] = engine.WarmUp, 99
			}
			if round == 3 && i == 1 {
				one.Measures = map[string]float64{"failed": 1, "leaks": 0, "frozen": 77}
				one.Failure = &engine.Failure{Step: "run", Error: "<script>it</script> broke", Hint: "mend it"}
			}
			r.Records = append(r.Records, one)
		}
	}
	return r
}

func TestSeries(t *testing.T) {
	r := New(results(t, 1))
	small := r.Cells[0].Find("frozen")
	if small.N != 10 || !near(small.Median, 0.01055) || !near(small.Mean, 0.01055) || !near(small.SD, 3.0277e-4) || !near(small.Min, 0.0101) || !near(small.Max, 0.011) {
		t.Errorf("%+v", small)
	}
	// Order statistics 2 and 9 of 10 have a coverage of 97.9 %.
	if !small.Interval || !near(small.Low, 0.0102) || !near(small.High, 0.0109) {
		t.Errorf("%+v", small)
	}
	// What warms up or fails is not in it.
	if large := r.Cells[1].Find("frozen"); large.N != 9 || large.Max > 1 || r.Cells[1].Failed != 1 || r.Cells[1].Runs != 10 {
		t.Errorf("%+v of %+v", large, r.Cells[1])
	}
	if few := seriesOf("frozen", []float64{1, 2, 3}); few.Interval || few.Low != few.Median {
		t.Errorf("%+v", few)
	}
}

func near(a, b float64) bool { return a > b*0.999 && a < b*1.001 }

func TestEnough(t *testing.T) {
	tight, wide := []float64{100, 101, 100, 99, 100, 101, 99, 100}, []float64{100, 150, 50, 100, 200, 20, 100, 80}
	if !Enough(tight, 0.05) || Enough(wide, 0.05) || Enough(tight[:3], 0.5) || Enough(nil, 1) {
		t.Error("wrong")
	}
}

func TestJudge(t *testing.T) {
	r := New(results(t, 1))
	got := map[string]Verdict{}
	for _, j := range r.Judgements {
		got[j.Cell+": "+j.Bound] = j.Verdict
	}
	for want, verdict := range map[string]Verdict{
		"size=small: median of frozen <= 20ms":              Holds,
		"size=l|arge: median of frozen <= 20ms":             Broken,
		"size=small: max of frozen >= 1ms where size=small": Holds,
		"size=small: median of downtime <= 1s":              Unknown,
		"size=small: max of failed <= 0":                    Holds,
		"size=l|arge: max of failed <= 0":                   Broken,
		"size=l|arge: max of leaks <= 0":                    Holds,
	} {
		if got[want] != verdict {
			t.Errorf("%s: %q, not %q", want, got[want], verdict)
		}
	}
	if len(got) != 9 || r.ExitCode() != Bad {
		t.Errorf("%v, exit code %d", got, r.ExitCode())
	}
	if want := "5 of 9 bounds hold; 20 runs in 2 cells, 1 failed; of 2 nothing is known"; r.Answer() != want {
		t.Error(r.Answer())
	}
}

// The page is a page: it says everything, escapes what it is told, and needs
// nothing from elsewhere.
func TestHTML(t *testing.T) {
	var b bytes.Buffer
	if err := New(results(t, 1)).WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if _, err := html.Parse(strings.NewReader(page)); err != nil {
		t.Error(err)
	}
	for _, not := range []string{"<script", "<b>", "http://", "https://", "url(", "@import", "<no value>", "%!"} {
		if strings.Contains(strings.ReplaceAll(page, `xmlns="http://www.w3.org/2000/svg"`, ""), not) {
			t.Errorf("%q is in the page", not)
		}
	}
	for _, want := range []string{"Is a &lt;b&gt;bigger&lt;/b&gt; one slower?", "run 8, size=l|arge", "size=l|arge", "&lt;script&gt;it&lt;/script&gt; broke", "mend it", "10.2 ms .. 10.9 ms", "Threats", "prefers-color-scheme: dark", "@media print"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if n := strings.Count(page, "<svg"); n != 5 { // two for each measure, and the phases
		t.Errorf("%d figures", n)
	}
}

func TestFigures(t *testing.T) {
	dir := t.TempDir()
	if err := New(results(t, 1)).WriteFigures(dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(files) != 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(bytes.NewReader(data)); ; {
			_, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if bytes.Contains(data, []byte("NaN")) || bytes.Contains(data, []byte("Inf")) {
			t.Errorf("%s: not a number in it", name)
		}
	}
}

func TestText(t *testing.T) {
	for want, c := range map[string]struct {
		unit plan.Unit
		v    float64
	}{"0": {plan.Seconds, 0}, "17 µs": {plan.Seconds, 17e-6}, "-1.5 ms": {plan.Seconds, -1.5e-3}, "2.5 s": {plan.Seconds, 2.5}, "-3 MiB": {plan.Bytes, -3 << 20}, "12 B": {plan.Bytes, 12}, "7": {plan.Count, 7}} {
		if got := text(c.unit, c.v); got != want {
			t.Errorf("%v: %q, want %q", c.v, got, want)
		}
	}
}

func TestScale(t *testing.T) {
	for _, c := range []struct {
		values []float64
		log    bool
		ticks  int
	}{{[]float64{1, 2, 3}, false, 4}, {[]float64{0.001, 2}, true, 5}, {[]float64{0, 0}, false, 6}, {[]float64{0, 1000}, false, 6}} {
		s := scaleOf(c.values)
		if s.log != c.log || len(s.ticks()) != c.ticks {
			t.Errorf("%v: %+v, ticks %v", c.values, s, s.ticks())
		}
		for _, v := range c.values {
			if x := s.x(v); x < labelWidth-0.01 || x > figureWidth-rightMargin+0.01 {
				t.Errorf("%v: %v is at %v", c.values, v, x)
			}
		}
	}
}

func TestForms(t *testing.T) {
	r := New(results(t, 1))
	var md, table, bench, text bytes.Buffer
	for _, err := range []error{r.WriteMarkdown(&md), r.WriteCSV(&table), r.WriteBench(&bench), r.WriteText(&text)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{`| frozen | size=l\|arge | 9 | 1 |`, "**broken** ", "&lt;script>it", "```yaml\n"} {
		if !strings.Contains(md.String(), want) {
			t.Errorf("%q is not in\n%s", want, md.String())
		}
	}
	rows, err := csv.NewReader(&table).ReadAll()
	if err != nil || len(rows) != 1+10*4+9*2+10*2 || strings.Join(rows[0], " ") != "size measure unit sample value" {
		t.Errorf("%d rows, %v: %v", len(rows), rows[0], err)
	}
	n := 0
	for in := benchfmt.NewReader(&bench, "bench"); in.Scan(); n++ {
		one, ok := in.Result().(*benchfmt.Result)
		if !ok {
			t.Fatalf("%v", in.Result())
		}
		if n == 0 && !strings.HasPrefix(string(one.Name), "Failed/size=small") {
			t.Errorf("%s", one.Name)
		}
	}
	if n != len(rows)-1 {
		t.Errorf("%d lines for benchstat", n)
	}
	if !strings.Contains(text.String(), "hint: mend it") {
		t.Error(text.String())
	}
}

func TestCompare(t *testing.T) {
	old, same, slow := New(results(t, 1)), New(results(t, 1)), New(results(t, 1.9))
	if d := Compare(old, same); d.ExitCode() != Good || len(d.Verdicts) != 0 || d.Changes[0].Differs {
		t.Errorf("%+v", d)
	}
	d := Compare(old, slow)
	if d.ExitCode() != Bad || len(d.Verdicts) != 1 || d.Verdicts[0].Before != Holds || d.Verdicts[0].After != Broken {
		t.Errorf("%+v", d.Verdicts)
	}
	if c := d.Changes[0]; !c.Differs || c.Percent() != "+90.0 %" || c.Word() != "more" || c.P > 0.001 {
		t.Errorf("%+v", c)
	}
	slow.Provenance.Kernel = "6.2"
	if d := Compare(old, slow); len(d.Machines) != 1 || d.Machines[0].What != "kernel" {
		t.Errorf("%+v", d.Machines)
	}
}
