package report

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"crucible/experiments/plan"
)

// figure is a drawing: width and height in pixels, and SVG elements that take
// their colours from the classes of styles.
type figure struct {
	name, title   string
	width, height int
	body          bytes.Buffer
}

func (f *figure) add(format string, args ...any) { fmt.Fprintf(&f.body, format+"\n", args...) }

func (f *figure) text(x, y float64, class, s string) {
	f.add(`<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, html.EscapeString(s))
}

// svg writes the figure; alone it brings its own style.
func (f *figure) svg(w io.Writer, alone bool) {
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n", f.width, f.height, f.width, f.height, html.EscapeString(f.title))
	if alone {
		fmt.Fprintf(w, "<style>%s</style>\n<rect width=\"100%%\" height=\"100%%\" class=\"ground\"/>\n", lightStyle+figureStyle)
	}
	_, _ = w.Write(f.body.Bytes())
	fmt.Fprintln(w, "</svg>")
}

const lightStyle = `:root{--ground:#fff;--ink:#1b1f24;--faint:#d0d7de;--c0:#0969da;--c1:#bc4c00;--c2:#1a7f37;--c3:#8250df;--c4:#bf3989;--c5:#9a6700;--c6:#57606a;--c7:#0550ae}`

const darkStyle = `:root{--ground:#0d1117;--ink:#e6edf3;--faint:#30363d;--c0:#58a6ff;--c1:#f0883e;--c2:#3fb950;--c3:#bc8cff;--c4:#f778ba;--c5:#d29922;--c6:#8b949e;--c7:#79c0ff}`

const figureStyle = `.ground{fill:var(--ground)}.axis,.grid{stroke:var(--faint);stroke-width:1}.label{fill:var(--ink);font:12px sans-serif}.right{text-anchor:end}.middle{text-anchor:middle}` +
	`.box{fill:none;stroke:var(--c0);stroke-width:1.5}.median{stroke:var(--c1);stroke-width:2.5}.dot{fill:var(--c0);fill-opacity:.45}` +
	`.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}.l4{stroke:var(--c4)}.l5{stroke:var(--c5)}.l6{stroke:var(--c6)}.l7{stroke:var(--c7)}.line{fill:none;stroke-width:1.8}` +
	`.f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}.f4{fill:var(--c4)}.f5{fill:var(--c5)}.f6{fill:var(--c6)}.f7{fill:var(--c7)}`

const colours = 8

// Where a figure's parts are, in pixels.
const (
	figureWidth = 760
	labelWidth  = 240
	rightMargin = 24
	rowHeight   = 26
	topMargin   = 12
	axisHeight  = 34
)

// scale maps values to the horizontal axis.
type scale struct {
	low, high float64
	log       bool
}

// scaleOf covers values: by powers of ten where they span more than two of them.
func scaleOf(values []float64) scale {
	low, high := slices.Min(values), slices.Max(values)
	if low > 0 && high/low > 100 {
		return scale{math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high))), true}
	}
	if high <= 0 {
		high = 1
	}
	return scale{min(0, low), high * 1.03, false}
}

func (s scale) x(v float64) float64 {
	part := (v - s.low) / (s.high - s.low)
	if s.log {
		part = math.Log(v/s.low) / math.Log(s.high/s.low)
	}
	return labelWidth + part*(figureWidth-labelWidth-rightMargin)
}

// ticks are round values of the axis.
func (s scale) ticks() (all []float64) {
	if s.log {
		for v := s.low; v <= s.high*1.001; v *= 10 {
			all = append(all, v)
		}
		return all
	}
	step := math.Pow(10, math.Floor(math.Log10((s.high-s.low)/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (s.high-s.low)/(step*m) <= 6 {
			step *= m
			break
		}
	}
	for v := math.Ceil(s.low/step) * step; v <= s.high; v += step {
		all = append(all, v)
	}
	return all
}

// axis draws the horizontal axis below the rows.
func (f *figure) axis(s scale, unit plan.Unit, bottom float64) {
	for _, v := range s.ticks() {
		x := s.x(v)
		f.add(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%.1f" class="grid"/>`, x, topMargin, x, bottom)
		f.text(x, bottom+16, "label middle", text(unit, v))
	}
	f.add(`<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" class="axis"/>`, labelWidth, bottom, figureWidth-rightMargin, bottom)
}

// figures are all that the report has something to show for.
func (r *Report) figures() (all []*figure) {
	if f := r.outcomes(); f != nil {
		all = append(all, f)
	}
	if len(r.Cells) > mostRows {
		return all
	}
	for _, measure := range r.Shown {
		var cells []*Cell
		for i := range r.Cells {
			if r.Cells[i].Find(measure) != nil {
				cells = append(cells, &r.Cells[i])
			}
		}
		if len(cells) == 0 {
			continue
		}
		all = append(all, boxes(measure, cells), ecdf(measure, cells))
	}
	for _, verb := range []string{"checkpoint", "restore"} {
		if f := r.stack(verb); f != nil {
			all = append(all, f)
		}
	}
	return all
}

// mostRows is how many cells a figure with a row for each can have.
const mostRows = 40

// outcomes is a map of two factors: what failed, what was skipped. A few cells need
// none.
func (r *Report) outcomes() *figure {
	if len(r.Cells) < 12 || len(r.Cells[0].Values) != 2 {
		return nil
	}
	var rows, columns []string
	for _, c := range r.Cells {
		if v := c.Values[0].Value; !slices.Contains(rows, v) {
			rows = append(rows, v)
		}
		if v := c.Values[1].Value; !slices.Contains(columns, v) {
			columns = append(columns, v)
		}
	}
	const high, wide = 15, 90
	top := topMargin + 20
	f := &figure{name: "map", title: "what came through (+), came through but differs (~), failed (X), was skipped (-)", width: labelWidth + wide*len(columns) + rightMargin, height: top + high*len(rows) + 8}
	for i, name := range columns {
		f.text(float64(labelWidth+wide*i+wide/2), topMargin+8, "label middle", name)
	}
	for i, name := range rows {
		f.text(labelWidth-8, float64(top+high*i+12), "label right", shortened(name))
	}
	for k := range r.Cells {
		c := &r.Cells[k]
		x, y := labelWidth+wide*slices.Index(columns, c.Values[1].Value), top+high*slices.Index(rows, c.Values[0].Value)
		mark, class := "+", "f2"
		switch {
		case c.Failed > 0:
			mark, class = "X", "f1"
		case r.differs(c) != nil:
			mark, class = "~", "f5"
		case c.Runs == 0:
			mark, class = "-", "f6"
		}
		f.add(`<rect x="%d" y="%d" width="%d" height="%d" class="%s" fill-opacity=".35"><title>%s</title></rect>`, x+1, y+1, wide-2, high-2, class, html.EscapeString(r.whatOf(c)))
		f.text(float64(x+wide/2), float64(y+12), "label middle", mark)
	}
	return f
}

// whatOf says what came of a cell.
func (r *Report) whatOf(c *Cell) string {
	for _, one := range r.Failures {
		if one.Cell == c.Name {
			return c.Name + ": " + one.Failure.String()
		}
	}
	if d := r.differs(c); d != nil {
		return c.Name + ": " + strings.Join(d, "; ")
	}
	if c.Lacks != "" {
		return c.Name + ": the kernel lacks " + c.Lacks
	}
	return c.Name
}

// differs is what --verify has found in a cell.
func (r *Report) differs(c *Cell) []string {
	for _, one := range r.Differing {
		if one.Cell == c.Name {
			return one.Differs
		}
	}
	return nil
}

func samplesOf(measure string, cells []*Cell) (all []float64) {
	for _, c := range cells {
		all = append(all, c.Find(measure).Samples...)
	}
	return all
}

// boxes shows for each cell all samples, their quartiles and their median.
func boxes(measure string, cells []*Cell) *figure {
	s := scaleOf(samplesOf(measure, cells))
	bottom := float64(topMargin + rowHeight*len(cells))
	f := &figure{name: "box-" + measure, title: measure + ": samples, quartiles and median of each cell", width: figureWidth, height: int(bottom) + axisHeight}
	f.axis(s, cells[0].Find(measure).Unit, bottom)
	for i, c := range cells {
		series := c.Find(measure)
		y := topMargin + (float64(i)+0.5)*rowHeight
		f.text(labelWidth-8, y+4, "label right", shortened(c.Name))
		sorted := slices.Sorted(slices.Values(series.Samples))
		low, high := quartile(sorted, 0.25), quartile(sorted, 0.75)
		f.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="14" class="box"/>`, s.x(low), y-7, max(1, s.x(high)-s.x(low)))
		for k, v := range series.Samples {
			f.add(`<circle cx="%.1f" cy="%.1f" r="2.2" class="dot"/>`, s.x(v), y+float64(k%5-2)*2)
		}
		f.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="median"/>`, s.x(series.Median), y-9, s.x(series.Median), y+9)
	}
	return f
}

func quartile(sorted []float64, p float64) float64 {
	at := p * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// ecdf shows which part of the runs took at most how much.
func ecdf(measure string, cells []*Cell) *figure {
	const height = 200
	s := scaleOf(samplesOf(measure, cells))
	bottom := float64(topMargin + height)
	f := &figure{name: "ecdf-" + measure, title: measure + ": part of the runs that were at most so much", width: figureWidth, height: int(bottom) + axisHeight}
	f.axis(s, cells[0].Find(measure).Unit, bottom)
	for _, percent := range []int{50, 100} {
		y := bottom - float64(percent)/100*height
		f.add(`<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" class="grid"/>`, labelWidth, y, figureWidth-rightMargin, y)
		f.text(labelWidth-6, y+4, "label right", fmt.Sprintf("%d %%", percent))
	}
	for i, c := range cells {
		sorted := slices.Sorted(slices.Values(c.Find(measure).Samples))
		var path strings.Builder
		fmt.Fprintf(&path, "M%.1f %.1f", s.x(sorted[0]), bottom)
		for k, v := range sorted {
			y := bottom - float64(k+1)/float64(len(sorted))*height
			fmt.Fprintf(&path, "H%.1fV%.1f", s.x(v), y)
		}
		f.add(`<path d="%sH%d" class="line l%d"/>`, path.String(), figureWidth-rightMargin, i%colours)
		if y := topMargin + 14 + 15*i; y < height+topMargin {
			f.add(`<rect x="4" y="%d" width="10" height="10" class="f%d"/>`, y-9, i%colours)
			f.text(20, float64(y), "label", shortenedTo(c.Name, 27))
		}
	}
	return f
}

// stackParts is how many phases a bar shows; the rest are one.
const stackParts = colours - 1

// stack shows the phases of a command, the longest of them, by their medians.
func (r *Report) stack(verb string) *figure {
	prefix := "phase:" + verb + "/"
	total := map[string]float64{}
	var cells []*Cell
	for i := range r.Cells {
		found := false
		for _, s := range r.Cells[i].Series {
			if name, ok := strings.CutPrefix(s.Measure, prefix); ok {
				total[name], found = total[name]+s.Median, true
			}
		}
		if found {
			cells = append(cells, &r.Cells[i])
		}
	}
	if len(cells) == 0 {
		return nil
	}
	names := slices.SortedFunc(mapKeys(total), func(a, b string) int {
		if total[a] != total[b] {
			return int(math.Copysign(1, total[b]-total[a]))
		}
		return strings.Compare(a, b)
	})
	names = names[:min(len(names), stackParts)]
	longest := 0.0
	for _, c := range cells {
		sum := 0.0
		for _, name := range names {
			sum += medianOf(c, prefix+name)
		}
		longest = max(longest, sum)
	}
	s := scaleOf([]float64{0, longest})
	bottom := float64(topMargin + rowHeight*len(cells))
	f := &figure{name: "phases-" + verb, title: verb + ": the longest phases, medians; they may overlap", width: figureWidth, height: int(bottom) + axisHeight + 16*len(names)}
	f.axis(s, plan.Seconds, bottom)
	for i, c := range cells {
		y, x := topMargin+(float64(i)+0.5)*rowHeight, 0.0
		f.text(labelWidth-8, y+4, "label right", shortened(c.Name))
		for k, name := range names {
			v := medianOf(c, prefix+name)
			f.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="16" class="f%d"><title>%s: %s</title></rect>`, s.x(x), y-8, max(0, s.x(x+v)-s.x(x)), k, html.EscapeString(name), text(plan.Seconds, v))
			x += v
		}
	}
	for k, name := range names {
		y := bottom + axisHeight + 16*float64(k)
		f.add(`<rect x="%d" y="%.1f" width="10" height="10" class="f%d"/>`, labelWidth, y-9, k)
		f.text(labelWidth+16, y, "label", name)
	}
	return f
}

func medianOf(c *Cell, measure string) float64 {
	if s := c.Find(measure); s != nil {
		return s.Median
	}
	return 0
}

// shortened keeps a cell's name from running into the drawing.
func shortened(s string) string { return shortenedTo(s, 34) }

func shortenedTo(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// WriteFigures writes each figure to a file of its own in a directory, as SVG.
func (r *Report) WriteFigures(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	var errs []error
	for _, f := range r.figures() {
		var b bytes.Buffer
		f.svg(&b, true)
		name := strings.NewReplacer("/", "-", ":", "-", " ", "-").Replace(f.name)
		errs = append(errs, os.WriteFile(filepath.Join(dir, name+".svg"), b.Bytes(), 0o644))
	}
	return errors.Join(errs...)
}
