package report

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchfmt"

	"crucible/experiments/engine"
	"crucible/experiments/plan"
)

// columns of the table: head and value.
var columns = []struct {
	head  string
	value func(c *Cell, s *Series) string
}{
	{"n", func(_ *Cell, s *Series) string { return strconv.Itoa(s.N) }},
	{"failed", func(c *Cell, _ *Series) string { return strconv.Itoa(c.Failed) }},
	{"median", func(_ *Cell, s *Series) string { return text(s.Unit, s.Median) }},
	{"95 % interval", func(_ *Cell, s *Series) string {
		if !s.Interval {
			return "-"
		}
		return text(s.Unit, s.Low) + " .. " + text(s.Unit, s.High)
	}},
	{"mean", func(_ *Cell, s *Series) string { return text(s.Unit, s.Mean) }},
	{"sd", func(_ *Cell, s *Series) string { return text(s.Unit, s.SD) }},
	{"p95", func(_ *Cell, s *Series) string { return text(s.Unit, s.P95) }},
	{"p99", func(_ *Cell, s *Series) string { return text(s.Unit, s.P99) }},
}

// rows calls for each series that is shown, measure by measure.
func (r *Report) rows(row func(measure string, c *Cell, s *Series)) {
	for _, measure := range r.Shown {
		for i := range r.Cells {
			if s := r.Cells[i].Find(measure); s != nil {
				row(measure, &r.Cells[i], s)
			}
		}
	}
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s\n%s\n\n", r.Question, r.Answer())
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if n := len(r.Cells); n > mostRows {
		fmt.Fprintf(out, "%d cells: their numbers are in the page, in Markdown and in CSV\n", n)
	} else {
		r.tableText(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	r.remarks(out)
	return out.Flush()
}

func (r *Report) tableText(t io.Writer) {
	fmt.Fprint(t, "MEASURE\tCELL\tN\tFAILED\tMEDIAN\t95 % INTERVAL\tP95\n")
	r.rows(func(measure string, c *Cell, s *Series) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", measure, c.Name, columns[0].value(c, s), columns[1].value(c, s), columns[2].value(c, s), columns[3].value(c, s), columns[6].value(c, s))
	})
}

// remarks are what is to be said beside the numbers.
func (r *Report) remarks(out io.Writer) {
	for _, j := range worst(r.Judgements) {
		if j.Verdict != Holds {
			fmt.Fprintf(out, "%-8s %s: %s: %s\n", j.Verdict, j.Cell, j.Bound, text(j.Unit, j.Value))
		}
	}
	for _, f := range r.Failures {
		fmt.Fprintf(out, "run %d failed (%s): %s\n", f.Number, f.Cell, f.Failure)
		if f.Failure.Hint != "" {
			fmt.Fprintf(out, "  hint: %s\n", f.Failure.Hint)
		}
	}
	for _, d := range r.Differing {
		fmt.Fprintf(out, "run %d differs (%s): %s\n", d.Number, d.Cell, strings.Join(d.Differs, "; "))
	}
	for _, c := range r.Cells {
		if c.Lacks != "" {
			fmt.Fprintf(out, "skipped %s: the kernel lacks %s\n", c.Name, c.Lacks)
		}
	}
	for _, t := range r.Threats {
		fmt.Fprintln(out, "note:", t)
	}
}

// WriteMarkdown writes the report as Markdown.
func (r *Report) WriteMarkdown(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "# %s\n\n%s.\n\n", r.Question, r.Answer())
	line := func(cells ...string) { fmt.Fprintln(out, "| "+strings.Join(cells, " | ")+" |") }
	heads, rule := []string{"measure", "cell"}, []string{"---", "---"}
	for _, c := range columns {
		heads, rule = append(heads, c.head), append(rule, "---:")
	}
	line(heads...)
	line(rule...)
	r.rows(func(measure string, c *Cell, s *Series) {
		cells := []string{measure, escape(c.Name)}
		for _, column := range columns {
			cells = append(cells, column.value(c, s))
		}
		line(cells...)
	})
	fmt.Fprint(out, "\n## What must hold\n\n")
	for _, j := range worst(r.Judgements) {
		fmt.Fprintf(out, "- **%s** %s: %s (%s)\n", j.Verdict, escape(j.Cell), escape(j.Bound), text(j.Unit, j.Value))
	}
	if len(r.Failures) > 0 {
		fmt.Fprint(out, "\n## What failed\n\n")
	}
	for _, f := range r.Failures {
		fmt.Fprintf(out, "- run %d, %s: %s\n", f.Number, escape(f.Cell), escape(f.Failure.String()))
	}
	if len(r.Differing) > 0 {
		fmt.Fprint(out, "\n## What differs\n\n")
	}
	for _, d := range r.Differing {
		fmt.Fprintf(out, "- run %d, %s: %s\n", d.Number, escape(d.Cell), escape(strings.Join(d.Differs, "; ")))
	}
	if len(r.Threats) > 0 {
		fmt.Fprint(out, "\n## Threats to validity\n\n")
	}
	for _, t := range r.Threats {
		fmt.Fprintf(out, "- %s\n", t)
	}
	fmt.Fprint(out, "\n## How it was done\n\n")
	for _, p := range facts(r.Provenance) {
		fmt.Fprintf(out, "- %s: %s\n", p[0], escape(p[1]))
	}
	fmt.Fprintf(out, "\n```yaml\n%s```\n", r.experiment)
	return out.Flush()
}

func escape(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "\n", " ").Replace(s)
}

// facts are the provenance in words, without what is not known.
func facts(p engine.Provenance) (all [][2]string) {
	for _, f := range [][2]string{
		{"when", day(p.Started)}, {"crucible", p.Crucible}, {"CRIU", p.CRIU}, {"kernel", p.Kernel + " " + p.KernelVersion}, {"machine", p.Machine},
		{"processor", fmt.Sprintf("%d x %s", p.Processors, p.CPU)}, {"microcode", p.Microcode}, {"governor", p.Governor}, {"memory", text(plan.Bytes, float64(p.MemoryBytes))},
		{"filesystem", p.Filesystem}, {"clock", p.ClockSource}, {"seed", strconv.FormatUint(p.Seed, 10)}, {"SHA-256 of the experiment", p.Digest},
	} {
		if f[1] != "" {
			all = append(all, f)
		}
	}
	return all
}

// WriteCSV writes a line for each sample: RFC 4180.
func (r *Report) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	var names []string
	if len(r.Cells) > 0 {
		for _, v := range r.Cells[0].Values {
			names = append(names, v.Name)
		}
	}
	_ = out.Write(append(names, "measure", "unit", "sample", "value"))
	for _, c := range r.Cells {
		var values []string
		for _, v := range c.Values {
			values = append(values, v.Value)
		}
		for _, s := range c.Series {
			for i, v := range s.Samples {
				_ = out.Write(append(append([]string{}, values...), s.Measure, string(s.Unit), strconv.Itoa(i+1), strconv.FormatFloat(v, 'g', -1, 64)))
			}
		}
	}
	out.Flush()
	return out.Error()
}

// WriteBench writes the samples in the form that benchstat reads
// (golang.org/design/14313-benchmark-format): a line for each measure and sample.
func (r *Report) WriteBench(w io.Writer) error {
	out := benchfmt.NewWriter(w)
	for _, c := range r.Cells {
		for _, s := range c.Series {
			unit := "value"
			switch s.Unit {
			case plan.Seconds:
				unit = "sec/op"
			case plan.Bytes:
				unit = "B/op"
			}
			name := strings.NewReplacer("phase:", "phase/", " ", "-").Replace(s.Measure)
			for _, v := range c.Values {
				name += "/" + v.Name + "=" + strings.ReplaceAll(v.Value, " ", "-")
			}
			for _, v := range s.Samples {
				one := &benchfmt.Result{Name: benchfmt.Name(strings.ToUpper(name[:1]) + name[1:]), Iters: 1, Values: []benchfmt.Value{{Value: v, Unit: unit}}}
				one.SetConfig("crucible", r.Provenance.Crucible)
				one.SetConfig("kernel", r.Provenance.Kernel)
				if err := out.Write(one); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
