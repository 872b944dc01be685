package conformance

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"crucible/experiments/workload"
)

// Line is an outcome in one line of text; with counts there are two more.
func (o *Outcome) Line() string {
	line := fmt.Sprintf("%-4s  %-24s %6.1f s", o.Verdict, o.Case, o.Took.Seconds())
	if o.Verdict != workload.Pass {
		line += "  " + o.Reason
	}
	for _, more := range o.countLines() {
		line += "\n      " + more
	}
	return line
}

// Summary is a target's answer in one line of text.
func (a *Answer) Summary() string {
	pass, fail, skip := a.Count()
	name := a.Kernel
	if a.Release != "" && !strings.Contains(name, a.Release) {
		name += " (" + a.Release + ")"
	}
	text := fmt.Sprintf("%s, CRIU %s, cgroup %s: %d pass, %d fail, %d skip", name, a.CRIU, a.Cgroup, pass, fail, skip)
	if a.Unnamed != "" {
		text += "; the functions have no names: " + a.Unnamed
	}
	if a.Fault != "" {
		text += "; not tested"
		if pass+fail+skip > 0 {
			text += " to the end"
		}
		text += ": " + a.Fault
	}
	return text
}

// WriteKTAP writes a report in the format of the kernel's own tests
// (Documentation/dev-tools/ktap.rst): a target is a test with the cases as its
// subtests; of a single target these are on top.
func (r *Report) WriteKTAP(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "KTAP version 1")
	if len(r.Answers) == 1 {
		r.Answers[0].ktap(out, r.Cases, "")
		return out.Flush()
	}
	fmt.Fprintf(out, "1..%d\n", len(r.Answers))
	for i := range r.Answers {
		a := &r.Answers[i]
		fmt.Fprintln(out, "  KTAP version 1")
		a.ktap(out, r.Cases, "  ")
		pass, fail, _ := a.Count()
		state := "ok"
		if fail > 0 || pass == 0 || a.Fault != "" {
			state = "not ok"
		}
		fmt.Fprintf(out, "%s %d %s criu-%s cgroup-%s\n", state, i+1, a.Kernel, a.CRIU, a.Cgroup)
	}
	return out.Flush()
}

func (a *Answer) ktap(out io.Writer, cases []string, indent string) {
	fmt.Fprintf(out, "%s1..%d\n", indent, len(cases))
	for i, name := range cases {
		o := a.Find(name)
		switch {
		case o == nil:
			// Bail out! is TAP's word for the end of all; KTAP has none.
			fmt.Fprintf(out, "%s# %s\n%snot ok %d %s # SKIP not tested\n", indent, ktapText(a.Fault), indent, i+1, name)
		case o.Verdict == workload.Pass:
			for _, line := range o.countLines() {
				fmt.Fprintf(out, "%s# %s\n", indent, ktapText(line))
			}
			fmt.Fprintf(out, "%sok %d %s\n", indent, i+1, name)
		case o.Verdict == workload.Skip:
			fmt.Fprintf(out, "%sok %d %s # SKIP %s\n", indent, i+1, name, ktapText(o.Reason))
		default:
			fmt.Fprintf(out, "%s# %s: %s\n", indent, o.Step, ktapText(o.Reason))
			for _, line := range o.Kernel {
				fmt.Fprintf(out, "%s# %s\n", indent, ktapText(line))
			}
			fmt.Fprintf(out, "%snot ok %d %s\n", indent, i+1, name)
		}
	}
}

func ktapText(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\n", " "), "#", "\\#")
}

// Change is a case that came to something else on one target than on another.
type Change struct {
	Case   string   `json:"case"`
	Before *Outcome `json:"before,omitempty"` // nil: not tested
	After  *Outcome `json:"after,omitempty"`
}

// Compare lists the cases on which two answers differ, in order. A case that
// was not tested on either of them is no difference.
func Compare(cases []string, before, after *Answer) []Change {
	var changes []Change
	for _, name := range cases {
		b, a := before.Find(name), after.Find(name)
		if b == nil && a == nil || b != nil && a != nil && b.Verdict == a.Verdict {
			continue
		}
		changes = append(changes, Change{Case: name, Before: b, After: a})
	}
	return changes
}

// short is a time for people.
func short(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// Worse: what passed fails.
func (c Change) Worse() bool {
	return c.Before != nil && c.After != nil && c.Before.Verdict == workload.Pass && c.After.Verdict == workload.Fail
}

func (c Change) String() string {
	word := func(o *Outcome) string {
		if o == nil {
			return "not tested"
		}
		return string(o.Verdict)
	}
	text := fmt.Sprintf("%s: %s -> %s", c.Case, word(c.Before), word(c.After))
	switch {
	case c.After != nil && c.After.Reason != "":
		text += ": " + c.After.Reason
	case c.Before != nil && c.Before.Reason != "":
		text += " (before: " + c.Before.Reason + ")"
	}
	return text
}
