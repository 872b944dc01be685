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
	section string  // which section measures it
	what    string  // the quantity; all systems that have it are shown
	over    string  // the system that crucible is compared with, or empty
	part    float64 // crucible's median is to be at most this part of the other's; 0: no limit
	most    float64 // crucible's median is to be at most this, in the series' unit; 0: no limit
}

// targets say what must hold. In the comparison of crucible with itself the
// other, lazy, is to be the smaller one.
func targets() []target {
	const (
		tinyCheckpoint = "checkpoint, no network"
		tinyRestore    = "restore, no network"
	)
	return []target{
		{text: "`run true`: at most 0.35 x runc", section: "launch", what: "run", over: nameRunc, part: 0.35},
		{text: "`run true`: at most 0.8 x `lxc-execute`", section: "launch", what: "run", over: nameLXC, part: 0.8},
		{text: "tiny checkpoint: at most 0.20 x runc", section: "cycle", what: tinyCheckpoint, over: nameRunc, part: 0.20},
		{text: "tiny checkpoint, beside LXC's", section: "cycle", what: tinyCheckpoint, over: nameLXC},
		{text: "tiny checkpoint, beside CRIU alone", section: "cycle", what: tinyCheckpoint, over: nameCRIU},
		{text: "tiny restore: at most 0.20 x runc", section: "cycle", what: tinyRestore, over: nameRunc, part: 0.20},
		{text: "tiny restore, beside LXC's", section: "cycle", what: tinyRestore, over: nameLXC},
		{text: "tiny restore, beside CRIU alone", section: "cycle", what: tinyRestore, over: nameCRIU},
		{text: "the same two on the bridge: checkpoint", section: "cycle", what: "checkpoint, bridge", over: nameRunc},
		{text: "and restore", section: "cycle", what: "restore, bridge", over: nameRunc},
		{text: "frozen time of a tiny container, as crucible reports it: at most 5 ms", section: "frozen", what: "sleep, by crucible's own clock", most: 5},
		{text: "frozen time of a Go program, by its own clock", section: "frozen", what: "a Go program, by its own clock", over: nameRunc},
		{text: "the same, beside CRIU alone", section: "frozen", what: "a Go program, by its own clock", over: nameCRIU},
		{text: "a TCP client's longest gap over checkpoint and restore: at most 60 ms", section: "connection", what: "checkpoint and restore: longest pause", over: nameLXC, most: 60},
		{text: "the same with `-R`: at most 60 ms", section: "connection", what: "checkpoint that lets it run on: longest pause", over: nameRunc, most: 60},
		{text: "checkpoint of 256 MiB, beside CRIU alone", section: "memory", what: "checkpoint, 256 MiB", over: nameCRIU},
		{text: "restore of 256 MiB, beside CRIU alone", section: "memory", what: "restore, 256 MiB", over: nameCRIU},
		{text: "checkpoint of 1 GiB: at most 1.05 x CRIU alone", section: "memory", what: "checkpoint, 1024 MiB", over: nameCRIU, part: 1.05},
		{text: "restore of 1 GiB: at most 1.05 x CRIU alone", section: "memory", what: "restore, 1024 MiB", over: nameCRIU, part: 1.05},
		{text: "restore of 1 GiB until the answer: lazy at most 0.25 x eager (a ratio of at least 4)", section: "lazy", what: "1024 MiB, first answer", over: nameLazy, part: 0.25},
		{text: "CRIU's files of an image as JSON: at most 0.1 x crit, a tiny image", section: "decode", what: "sleep", over: nameCrit, part: 0.1},
		{text: "the same, beside crit's library in one program", section: "decode", what: "sleep", over: namePycriu},
		{text: "the same, beside go-criu's crit", section: "decode", what: "sleep", over: nameGoCrit},
		{text: "memory in 16384 pieces: at most 0.1 x crit", section: "decode", what: "16384 pieces of memory", over: nameCrit, part: 0.1},
		{text: "the same, beside crit's library in one program", section: "decode", what: "16384 pieces of memory", over: namePycriu, part: 0.1},
		{text: "the same, beside go-criu's crit", section: "decode", what: "16384 pieces of memory", over: nameGoCrit},
		{text: "a text in the memory of a 1 GiB image, warm: at most 1 s (nobody else has it)", section: "look", what: "search 1024 MiB", most: 1000},
		{text: "1 GiB against 1 GiB, page by page, warm: at most 2 s (nobody else has it)", section: "look", what: "compare 1024 MiB", most: 2000},
		{text: "1 GiB against its digests, on one processor: at most 716 ms (1.5 GB/s)", section: "look", what: "verify 1024 MiB on one processor", most: 716},
		{text: "1 clone, beside runc", section: "clones", what: "1 from one image", over: nameRunc},
		{text: "10 clones, beside runc", section: "clones", what: "10 from one image", over: nameRunc},
		{text: "100 clones, beside runc", section: "clones", what: "100 from one image", over: nameRunc},
		{text: "100 idle containers: starts per second", section: "idle", what: "100: starts, one after the other", over: nameRunc},
		{text: "1000 idle containers: starts per second", section: "idle", what: "1000: starts, one after the other"},
		{text: "idle container, our own memory (PSS): at most 2 MiB", section: "idle", what: "100: monitor's own memory (PSS)", over: nameLXC, most: 2048},
		{text: "the same with 1000 of them", section: "idle", what: "1000: monitor's own memory (PSS)", most: 2048},
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
	case t.most > 0: // compared with a series that is the same each time
		return judge(ratioOf(own.Samples, []float64{t.most}), 1)
	case t.part == 0:
		return ""
	case other == nil:
		return "not compared"
	case t.over == nameLazy:
		return judge(ratioOf(other.Samples, own.Samples), t.part)
	}
	return judge(ratioOf(own.Samples, other.Samples), t.part)
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
