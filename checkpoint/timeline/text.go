package timeline

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// TextOptions say how a trace is drawn with letters. The zero value works.
type TextOptions struct {
	Width   int  // columns; 0: 80
	Colours bool // and blocks, as a terminal shows them
	All     bool // every span; else of many tasks only the whole, and nothing that is too short to be seen
}

const (
	nameWidth  = 30
	numbers    = 20  // two columns of times
	manyTasks  = 6   // more have no parts, unless All
	visible    = 400 // a span must last this part of the whole
	leastWidth = nameWidth + numbers + 10
)

// WriteText draws the trace as bars, one line for each span.
func (t *Trace) WriteText(w io.Writer, o TextOptions) error {
	out := bufio.NewWriter(w)
	p := painter{t: t, o: o, out: out, width: max(o.Width, leastWidth) - nameWidth - numbers}
	if o.Width == 0 {
		p.width = 80 - nameWidth - numbers
	}
	fmt.Fprintf(out, "%s: %s ms", p.clean(t.Title), ms(t.Total))
	if t.Frozen > 0 {
		fmt.Fprintf(out, ", frozen for %s ms", ms(t.Frozen))
	}
	fmt.Fprintf(out, ", %.1f %% accounted for\n", t.Share()*100)
	tasks := 0
	for _, track := range t.Tracks {
		if track.Kind == Task {
			tasks++
		}
	}
	hidden := 0
	for _, track := range t.Tracks {
		hidden += p.track(track, tasks > manyTasks && track.Kind == Task)
	}
	if t.Frozen > 0 && !o.Colours {
		fmt.Fprintln(out, "\n# the container stands still   = it runs")
	}
	if hidden > 0 {
		fmt.Fprintf(out, "\n%d spans are not shown: --all shows them\n", hidden)
	}
	return out.Flush()
}

// Share is the part of the whole that is accounted for.
func (t *Trace) Share() float64 {
	if t.Total <= 0 {
		return 0
	}
	return float64(t.Accounted) / float64(t.Total)
}

type painter struct {
	t     *Trace
	o     TextOptions
	out   io.Writer
	width int // of the bars
}

// track draws one, and tells how many of its spans it has left out.
func (p *painter) track(track Track, wholeOnly bool) (hidden int) {
	head := false
	for _, s := range track.Spans {
		if !p.o.All && (s.Duration < p.t.Total/visible || wholeOnly && s.Depth > 0) {
			hidden++
			continue
		}
		if !head {
			head = true
			title := p.clean(track.Name)
			if p.o.Colours {
				title = "\x1b[1m" + title + "\x1b[0m"
			}
			fmt.Fprintf(p.out, "\n%s%*s\n", title, nameWidth+numbers-utf8.RuneCountInString(p.clean(track.Name)), "start ms        ms")
		}
		name := strings.Repeat(" ", 2+2*s.Depth) + p.clean(s.Name)
		if s.Bytes > 0 {
			name += " " + size(s.Bytes)
		}
		line := fmt.Sprintf("%s%10s%10s ", cut(name, nameWidth), ms(s.Start), ms(s.Duration))
		fmt.Fprintln(p.out, strings.TrimRight(line+p.bar(s), " "))
	}
	return hidden
}

// bar places a span in the time of the whole; the shortest is still seen.
func (p *painter) bar(s Span) string {
	width, total := p.width-1, max(p.t.Total, 1)
	place := func(d time.Duration) int { return int(float64(d) / float64(total) * float64(width)) }
	from := min(max(place(s.Start), 0), width-1)
	to := min(max(place(s.End()), from+1), width)
	ink := "="
	switch {
	case p.o.Colours:
		ink = "█"
	case s.Frozen:
		ink = "#"
	}
	bar := strings.Repeat(ink, to-from)
	if p.o.Colours && s.Frozen {
		bar = "\x1b[36m" + bar + "\x1b[0m"
	}
	return strings.Repeat(" ", from) + bar
}

// clean keeps what a task called itself from moving the cursor.
func (p *painter) clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// cut makes a text exactly so wide.
func cut(s string, width int) string {
	runes := []rune(s)
	if len(runes) > width-1 {
		runes = append(runes[:width-2], '…')
	}
	return string(runes) + strings.Repeat(" ", width-len(runes))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

func size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
