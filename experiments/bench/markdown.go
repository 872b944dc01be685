package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// target is a row of the README's table.
type target struct {
	text    string
	section string // which section measures it
	what    string // the quantity; all systems that have it are shown
	over    string // the system that crucible is compared with, or empty: no limit
	limit   float64
}

// smaller is for crucible compared with itself: the other must be the smaller.
const smaller = 0

// none is for a comparison without a target.
const none = -1

// targets say what must hold. A limit is for crucible's median as a part of
// the other system's.
func targets() []target {
	return []target{
		{"`run true`: at most 0.35 x runc", "launch", "run", nameRunc, 0.35},
		{"`run true`: at most 0.8 x `lxc-execute`", "launch", "run", nameLXC, 0.8},
		{"tiny checkpoint: at most 0.20 x runc", "cycle", "checkpoint, no network", nameRunc, 0.20},
		{"tiny checkpoint, beside LXC's", "cycle", "checkpoint, no network", nameLXC, none},
		{"tiny checkpoint, beside CRIU alone", "cycle", "checkpoint, no network", nameCRIU, none},
		{"tiny restore: at most 0.20 x runc", "cycle", "restore, no network", nameRunc, 0.20},
		{"tiny restore, beside LXC's", "cycle", "restore, no network", nameLXC, none},
		{"tiny restore, beside CRIU alone", "cycle", "restore, no network", nameCRIU, none},
		{"frozen time of a tiny container, as crucible reports it: at most 5 ms", "frozen", "sleep, by crucible's own clock", "", 0},
		{"frozen time of a Go program, by its own clock", "frozen", "a Go program, by its own clock", nameRunc, none},
		{"a TCP client's longest gap over checkpoint and restore: at most 60 ms", "connection", "checkpoint and restore: longest pause", nameLXC, none},
		{"the same with `-R`: at most 60 ms", "connection", "checkpoint that lets it run on: longest pause", nameRunc, none},
		{"checkpoint of 1 GiB: at most 1.05 x CRIU alone", "memory", "checkpoint, 1024 MiB", nameCRIU, 1.05},
		{"restore of 1 GiB: at most 1.05 x CRIU alone", "memory", "restore, 1024 MiB", nameCRIU, 1.05},
		{"restore of 1 GiB until the answer: lazy at most 0.25 x eager (a ratio of 4)", "lazy", "1024 MiB, first answer", nameLazy, none},
		{"10 clones, beside runc", "clones", "10 from one image", nameRunc, none},
		{"100 clones, beside runc", "clones", "100 from one image", nameRunc, none},
		{"100 idle containers: starts per second", "idle", "100: starts, one after the other", "", 0},
		{"idle container, our own memory (PSS): at most 2 MiB", "idle", "100: monitor's own memory (PSS)", nameLXC, none},
	}
}

// markdown writes the README's table. What was not measured has no row.
func (r *results) markdown(out io.Writer) error {
	fmt.Fprintln(out, "| target | measured | | command |\n|---|---|---|---|")
	for _, t := range targets() {
		own := r.find(t.section, t.what, nameCrucible)
		if own == nil {
			continue
		}
		fmt.Fprintf(out, "| %s | %s | %s | `scripts/bench --only %s` |\n", t.text, r.measured(t), r.verdict(t), t.section)
	}
	first := strings.ReplaceAll(machineText(r.Machine), "\n", "; ")
	_, err := fmt.Fprintf(out, "\nMedians with quartiles; ratios are of medians, with a 95 %% bootstrap interval. %s.\n", first)
	return err
}

// measured is all systems' numbers for a quantity.
func (r *results) measured(t target) string {
	var words []string
	for _, s := range r.Series {
		if s.Section != t.section || s.What != t.what || s.System != nameCrucible && s.System != t.over {
			continue
		}
		sum := summarise(s.Samples)
		words = append(words, fmt.Sprintf("%s %s %s (%s .. %s)", s.System, number(sum.Median), s.Unit, number(sum.Lower), number(sum.Upper)))
	}
	if own, other := r.find(t.section, t.what, nameCrucible), r.find(t.section, t.what, t.over); other != nil {
		words = append(words, "ratio "+ratioOf(own.Samples, other.Samples).String())
	}
	return strings.Join(words, ", ")
}

// verdict is what became of a target.
func (r *results) verdict(t target) string {
	own, other := r.find(t.section, t.what, nameCrucible), r.find(t.section, t.what, t.over)
	switch {
	case t.over == "":
		return ""
	case other == nil:
		return "not compared"
	case t.limit == none:
		return ""
	case t.limit == smaller:
		return judge(ratioOf(other.Samples, own.Samples), 1)
	}
	return judge(ratioOf(own.Samples, other.Samples), t.limit)
}

// judge says whether a ratio is within a limit, and whether its whole interval
// is on the same side.
func judge(x ratio, limit float64) string {
	verdict, certain := "no", x.Low > limit
	if x.Value <= limit {
		verdict, certain = "yes", x.High <= limit
	}
	if !certain {
		verdict += ", within the noise"
	}
	return verdict
}

// The table stands between these lines in a file that has more than the table.
const (
	markBegin = "<!-- bench -->\n"
	markEnd   = "<!-- /bench -->"
)

// markdownFile writes the table to a new file, or into its place in one that is there.
func (r *results) markdownFile(path string) error {
	var table strings.Builder
	if err := r.markdown(&table); err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = []byte(markBegin+markEnd+"\n"), nil
	}
	if err != nil {
		return err
	}
	text, ok := splice(string(old), table.String())
	if !ok {
		return fmt.Errorf("write %s: it has no lines %q and %q to put the table between", path, strings.TrimSpace(markBegin), markEnd)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// splice puts the table in its place.
func splice(text, table string) (string, bool) {
	before, rest, ok := strings.Cut(text, markBegin)
	_, after, found := strings.Cut(rest, markEnd)
	return before + markBegin + table + markEnd + after, ok && found
}
