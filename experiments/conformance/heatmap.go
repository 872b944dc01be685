package conformance

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"crucible/experiments/workload"
)

// A heat map has a row for each case and a column for each target.

// cell is a place of the map.
type cell struct {
	mark   string // one column wide, so that the map reads without colours
	class  string // pass, fail, skip or none
	colour string // of a terminal: the number of an SGR sequence
	tip    string
}

func (a *Answer) cell(name string) cell {
	o := a.Find(name)
	if o == nil {
		return cell{"?", "none", "35", "not tested: " + a.Fault}
	}
	switch o.Verdict {
	case workload.Pass:
		return cell{"+", "pass", "32", "pass in " + short(o.Took)}
	case workload.Skip:
		return cell{"-", "skip", "33", "skip: " + o.Reason}
	}
	return cell{"X", "fail", "31", "fail at " + string(o.Step) + ": " + o.Reason}
}

// WriteMap writes the heat map for a terminal, what stands behind each fail and
// skip below it, and the totals.
func (r *Report) WriteMap(w io.Writer, colours bool) error {
	out := bufio.NewWriter(w)
	width := 0
	for _, name := range r.Cases {
		width = max(width, len(name))
	}
	r.columns(out, width)
	for _, name := range r.Cases {
		fmt.Fprintf(out, "%-*s", width, name)
		for i := range r.Answers {
			c := r.Answers[i].cell(name)
			if colours {
				c.mark = "\x1b[" + c.colour + "m" + c.mark + "\x1b[0m"
			}
			fmt.Fprintf(out, "  %s", c.mark)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "\n+ pass  X fail  - skip  ? not tested")
	r.reasons(out)
	return out.Flush()
}

// columns writes the numbers of the columns, and what they stand for.
func (r *Report) columns(out io.Writer, width int) {
	for i := range r.Answers {
		a := &r.Answers[i]
		fmt.Fprintf(out, "%2d  %s, %s\n", i+1, a.Summary(), short(a.Took))
	}
	fmt.Fprintf(out, "\n%*s", width, "")
	for i := range r.Answers {
		fmt.Fprintf(out, " %2d", i+1)
	}
	fmt.Fprintln(out)
}

// reasons writes each reason once, with the cases and the columns that it holds
// for.
func (r *Report) reasons(out io.Writer) {
	pids := regexp.MustCompile(`\bpid \d+: `)
	var order []string
	cases := map[string][]string{}
	for _, name := range r.Cases {
		var texts []string
		columns := map[string][]string{}
		for i := range r.Answers {
			o := r.Answers[i].Find(name)
			if o == nil || o.Verdict == workload.Pass {
				continue
			}
			text := string(o.Verdict) + ": " + pids.ReplaceAllString(o.Reason, "")
			if columns[text] == nil {
				texts = append(texts, text)
			}
			columns[text] = append(columns[text], fmt.Sprint(i+1))
		}
		for _, text := range texts {
			line := fmt.Sprintf(" [%s] %s", strings.Join(columns[text], ","), text)
			if cases[line] == nil {
				order = append(order, line)
			}
			cases[line] = append(cases[line], name)
		}
	}
	for _, line := range order {
		fmt.Fprintf(out, "%s%s\n", strings.Join(cases[line], ", "), line)
	}
}

// Sizes of the drawing, in pixels.
const (
	cellSize   = 18
	labelWidth = 190
	headHeight = 190
)

// WriteSVG draws the heat map. It holds for light and dark pages, and each
// place tells what stands behind it when pointed at.
func (r *Report) WriteSVG(w io.Writer) error {
	out := bufio.NewWriter(w)
	width := labelWidth + len(r.Answers)*cellSize + headHeight/2
	height := headHeight + len(r.Cases)*cellSize + 40
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", width, height, width, height)
	fmt.Fprint(out, `<style>text{fill:#222}.pass{fill:#3a9d5d}.fail{fill:#c8323c}.skip{fill:#d9b44a}.none{fill:#a9a9b5}.mark{fill:#fff;text-anchor:middle}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>`+"\n")
	fmt.Fprintf(out, "<title>%s</title>\n", html.EscapeString(r.title()))
	for i := range r.Answers {
		a := &r.Answers[i]
		x, y := labelWidth+i*cellSize+cellSize/2+4, headHeight-6
		fmt.Fprintf(out, `<text transform="translate(%d %d) rotate(-60)">%s</text>`+"\n", x, y, html.EscapeString(a.label()))
	}
	for row, name := range r.Cases {
		y := headHeight + row*cellSize
		fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-6, y+13, html.EscapeString(name))
		for i := range r.Answers {
			c := r.Answers[i].cell(name)
			x := labelWidth + i*cellSize
			fmt.Fprintf(out, `<g><title>%s, %s: %s</title><rect class="%s" x="%d" y="%d" width="%d" height="%d"/><text class="mark" x="%d" y="%d">%s</text></g>`+"\n",
				html.EscapeString(name), html.EscapeString(r.Answers[i].label()), html.EscapeString(c.tip), c.class, x, y, cellSize-1, cellSize-1, x+cellSize/2, y+13, c.mark)
		}
	}
	fmt.Fprintf(out, `<text x="%d" y="%d">+ pass   X fail   - skip (a feature is missing)   ? not tested</text>`+"\n", 6, height-14)
	fmt.Fprintln(out, "</svg>")
	return out.Flush()
}

func (a *Answer) label() string {
	name := a.Kernel
	release, _, _ := strings.Cut(a.Release, "-cloud")
	switch {
	case release == "":
	case strings.HasPrefix(a.Kernel, "debian:"):
		name = release
	default: // one of somebody's own
		name = filepath.Base(a.Kernel) + " " + release
	}
	return name + ", CRIU " + a.CRIU + ", " + a.Cgroup
}

func (r *Report) title() string {
	return fmt.Sprintf("%d conformance cases on %d targets", len(r.Cases), len(r.Answers))
}

// WriteHTML writes one page with the heat map and every reason, which needs
// nothing from elsewhere.
func (r *Report) WriteHTML(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>%s</title>
<style>body{font:14px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;vertical-align:top;border-bottom:1px solid #8884}.n{text-align:right}</style>
<h1>%s</h1>
<p>%s, %s.</p>
`, html.EscapeString(r.title()), html.EscapeString(r.title()), html.EscapeString(r.Machine), short(r.Took))
	if err := r.WriteSVG(out); err != nil {
		return err
	}
	fmt.Fprintln(out, "<h2>Targets</h2>\n<table><tr><th>kernel<th>CRIU<th>cgroup<th class=n>pass<th class=n>fail<th class=n>skip<th class=n>boot<th class=n>all<th></tr>")
	for i := range r.Answers {
		a := &r.Answers[i]
		pass, fail, skip := a.Count()
		fmt.Fprintf(out, "<tr><td>%s<td>%s<td>%s<td class=n>%d<td class=n>%d<td class=n>%d<td class=n>%s<td class=n>%s<td>%s</tr>\n",
			html.EscapeString(strings.TrimSpace(a.Kernel+" "+a.Release)), html.EscapeString(a.CRIU), a.Cgroup, pass, fail, skip,
			short(a.Boot), short(a.Took), html.EscapeString(a.Fault))
	}
	fmt.Fprintln(out, "</table>\n<h2>What did not pass</h2>\n<table><tr><th>case<th>target<th>what</tr>")
	for _, name := range r.Cases {
		for i := range r.Answers {
			a := &r.Answers[i]
			if o := a.Find(name); o != nil && o.Verdict != workload.Pass {
				fmt.Fprintf(out, "<tr><td>%s<td>%s<td>%s</tr>\n", html.EscapeString(name), html.EscapeString(a.label()), html.EscapeString(a.cell(name).tip))
			}
		}
	}
	fmt.Fprintln(out, "</table></html>")
	return out.Flush()
}
