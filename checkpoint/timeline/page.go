package timeline

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"time"
	"unicode/utf8"
)

// Sizes of the drawing, in its own units, which are pixels where the page is
// wide enough.
const (
	labels    = 150
	drawing   = 1000
	lane      = 22
	headRoom  = 24
	letter    = 6.2 // the width of one, about
	gapLanes  = 8
	tickAim   = 8 // about so many marks on the axis
	pageStyle = `:root{--ink:#1d1f24;--paper:#fff;--line:#8884;--faint:#667;--command:#4878b8;--monitor:#4878b8;--beside:#8a6bb1;--questions:#b0763a;--criu:#3a9d5d;--task:#7a9a3a;--still:#c8323c;--in:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e4e4e8;--paper:#16181d;--faint:#99a;--command:#6f9fe0;--monitor:#6f9fe0;--beside:#b394dc;--questions:#d79a5c;--criu:#5cc27f;--task:#a3c35f;--still:#ee6a72;--in:#16181d}}
body{font:14px/1.5 sans-serif;color:var(--ink);background:var(--paper);max-width:80em;margin:2em auto;padding:0 1em}
svg{width:100%;height:auto}svg text{font:11px sans-serif;fill:var(--ink)}svg .in{fill:var(--in)}svg .tick{stroke:var(--line)}svg .name{text-anchor:end}svg .at{text-anchor:middle;fill:var(--faint)}
.command{fill:var(--command)}.monitor{fill:var(--monitor)}.beside{fill:var(--beside)}.questions{fill:var(--questions)}.criu{fill:var(--criu)}.task{fill:var(--task)}.still{fill:var(--still);opacity:.12}
rect.d1{opacity:.75}table{border-collapse:collapse}td,th{padding:.1em .8em;text-align:left;border-bottom:1px solid var(--line)}.n{text-align:right;font-variant-numeric:tabular-nums}.p{padding-left:2em}
@media print{:root{--ink:#000;--paper:#fff}body{max-width:none;margin:0}tr{break-inside:avoid}svg{print-color-adjust:exact;-webkit-print-color-adjust:exact}}`
)

// WriteHTML writes one page with a drawing and a table of all spans. It needs
// nothing from elsewhere.
func (t *Trace) WriteHTML(w io.Writer) error {
	out := bufio.NewWriter(w)
	title := escape(t.Title)
	fmt.Fprintf(out, `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>%s</title>
<style>%s</style></head>
<body><h1>%s</h1>
<p>%s. It took %s ms`, title, pageStyle, title, escape(t.Started.UTC().Format(time.RFC3339)), ms(t.Total))
	if t.Frozen > 0 {
		fmt.Fprintf(out, ", in %s ms of which the container stood still (shaded)", ms(t.Frozen))
	}
	fmt.Fprintf(out, "; %.1f %% of it is accounted for.", t.Share()*100)
	if t.Margin > 0 {
		fmt.Fprintf(out, " CRIU's times are placed with an error of at most %.3f ms.", float64(t.Margin)/float64(time.Millisecond))
	}
	fmt.Fprintln(out, "</p>")
	t.drawing(out)
	t.table(out)
	fmt.Fprintln(out, "</body></html>")
	return out.Flush()
}

// escape is for text between tags and in attributes; what is no UTF-8, or no
// character of HTML, does not stay.
func escape(s string) string {
	clean := make([]rune, 0, len(s))
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r == 0xfffe || r == 0xffff {
			r = '?'
		}
		clean = append(clean, r)
	}
	return html.EscapeString(string(clean))
}

// lanes is how many rows a track takes: one for each depth.
func (t Track) lanes() int {
	n := 1
	for _, s := range t.Spans {
		n = max(n, s.Depth+1)
	}
	return n
}

func (t *Trace) drawing(out io.Writer) {
	height := headRoom
	for _, track := range t.Tracks {
		height += track.lanes()*lane + gapLanes
	}
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img"><title>%s</title>`+"\n", labels+drawing, height, escape(t.Title))
	t.axis(out, height)
	for _, s := range t.still() {
		x, width := t.place(s)
		fmt.Fprintf(out, `<rect class="still" x="%.1f" y="%d" width="%.1f" height="%d"/>`+"\n", x, headRoom-4, width, height-headRoom+4)
	}
	y := headRoom
	for _, track := range t.Tracks {
		fmt.Fprintf(out, `<text class="name" x="%d" y="%d">%s</text>`+"\n", labels-8, y+15, escape(abridge(track.Name, 24)))
		for _, s := range track.Spans {
			t.rect(out, track, s, y+s.Depth*lane)
		}
		y += track.lanes()*lane + gapLanes
	}
	fmt.Fprintln(out, "</svg>")
}

func (t *Trace) rect(out io.Writer, track Track, s Span, y int) {
	x, width := t.place(s)
	tip := fmt.Sprintf("%s: %s, from %s ms for %s ms", track.Name, s.Name, ms(s.Start), ms(s.Duration))
	if s.Pages > 0 {
		tip += fmt.Sprintf(", %d pages (%s)", s.Pages, size(s.Bytes))
	}
	fmt.Fprintf(out, `<g><title>%s</title><rect class="%s d%d" x="%.1f" y="%d" width="%.1f" height="%d" rx="2"/>`,
		escape(tip), track.Kind, min(s.Depth, 1), x, y, width, lane-2)
	if float64(utf8.RuneCountInString(s.Name))*letter+6 < width {
		fmt.Fprintf(out, `<text class="in" x="%.1f" y="%d">%s</text>`, x+4, y+14, escape(s.Name))
	}
	fmt.Fprintln(out, "</g>")
}

// place is where a span begins in the drawing, and how wide it is; it can be seen
// in any case.
func (t *Trace) place(s Span) (x, width float64) {
	total := float64(max(t.Total, 1))
	at := func(d time.Duration) float64 { return min(max(float64(d)/total, 0), 1) * drawing }
	return labels + at(s.Start), max(at(s.End())-at(s.Start), 0.7)
}

// axis marks round times.
func (t *Trace) axis(out io.Writer, height int) {
	step, factors := time.Microsecond, []time.Duration{2, 5, 10} // 1, 2, 5, 10, 20, 50, ...
	for n, power := 0, step; t.Total/step > tickAim; n++ {
		step = power * factors[n%3]
		if n%3 == 2 {
			power = step
		}
	}
	for at := time.Duration(0); at <= t.Total; at += step {
		x, _ := t.place(Span{Start: at})
		fmt.Fprintf(out, `<line class="tick" x1="%.1f" y1="16" x2="%.1f" y2="%d"/><text class="at" x="%.1f" y="12">%g ms</text>`+"\n",
			x, x, height, x, float64(at)/float64(time.Millisecond))
	}
}

func abridge(s string, most int) string {
	runes := []rune(s)
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return s
}

func (t *Trace) table(out io.Writer) {
	fmt.Fprintln(out, `<table><thead><tr><th>who</th><th>what</th><th class="n">start ms</th><th class="n">ms</th><th class="n">memory</th><th>container</th></tr></thead><tbody>`)
	for _, track := range t.Tracks {
		for i, s := range track.Spans {
			who, part, memory, still := "", "", "", ""
			if i == 0 {
				who = escape(track.Name)
			}
			if s.Depth > 0 {
				part = ` class="p"`
			}
			if s.Pages > 0 {
				memory = size(s.Bytes)
			}
			if s.Frozen {
				still = "stands still"
			}
			fmt.Fprintf(out, `<tr><td>%s</td><td%s>%s</td><td class="n">%s</td><td class="n">%s</td><td class="n">%s</td><td>%s</td></tr>`+"\n",
				who, part, escape(s.Name), ms(s.Start), ms(s.Duration), memory, still)
		}
	}
	fmt.Fprintln(out, "</tbody></table>")
}
