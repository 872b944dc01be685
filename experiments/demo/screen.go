package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"crucible/checkpoint"
)

// screen prints what happens: with colour and moving numbers on a terminal,
// plain lines elsewhere.
type screen struct {
	out   io.Writer
	fancy bool
	live  bool // the last line is to be overwritten
}

func newScreen(out io.Writer, fancy bool) *screen { return &screen{out: out, fancy: fancy} }

const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (s *screen) style(code, text string) string {
	if !s.fancy {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) line(text string) {
	if s.live {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.live = false
	}
	fmt.Fprintln(s.out, text)
}

// now shows what is under way; it stays only until the next line.
func (s *screen) now(text string) {
	if !s.fancy {
		return
	}
	fmt.Fprint(s.out, "\r\x1b[K", s.style(faint, "  "+text+" ..."))
	s.live = true
}

func (s *screen) title(text string) {
	s.line(s.style(bold, text))
	s.line("")
}

// step tells what was done and how long it took.
func (s *screen) step(verb, what string, took time.Duration) {
	time := ""
	if took > 0 {
		time = milliseconds(took) + " ms"
	}
	s.line(fmt.Sprintf("  %s  %-52s %12s", s.style(cyan, fmt.Sprintf("%-10s", verb)), what, time))
}

// verdict tells whether something held.
func (s *screen) verdict(err error, what string) {
	if err != nil {
		s.line("  " + s.style(red, "FAILED") + "  " + what + ": " + err.Error())
		return
	}
	s.line("  " + s.style(green, "ok") + "      " + what)
}

// barWidth is that of the column in which phases are drawn.
const barWidth = 34

// phases draws where the time of one command went. Phases may overlap.
func (s *screen) phases(title string, all []checkpoint.Phase) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b checkpoint.Phase) int { return int(a.Start - b.Start) })
	var end time.Duration
	width := utf8.RuneCountInString(title)
	for _, p := range all {
		end = max(end, p.Start+p.Duration)
		width = max(width, len(p.Name))
	}
	s.line("")
	s.line(fmt.Sprintf("  %s  %9s  %9s", s.style(bold, pad(title, width)), "start ms", "ms"))
	for _, p := range all {
		b, note := bar(p, end, s.fancy), ""
		if p.Frozen {
			b, note = s.style(cyan, b), "  frozen"
		}
		s.line(strings.TrimRight(fmt.Sprintf("  %s  %9s  %9s  %s%s", pad(p.Name, width), milliseconds(p.Start), milliseconds(p.Duration), b, note), " "))
	}
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// bar places a phase in the time of the whole; the shortest is still seen.
func bar(p checkpoint.Phase, end time.Duration, fancy bool) string {
	if end <= 0 {
		return strings.Repeat(" ", barWidth)
	}
	from := min(int(p.Start*barWidth/end), barWidth-1)
	to := min(max(int((p.Start+p.Duration)*barWidth/end), from+1), barWidth)
	ink := "#"
	if fancy {
		ink = "█"
	}
	return strings.Repeat(" ", from) + strings.Repeat(ink, to-from) + strings.Repeat(" ", barWidth-to)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}

// thousands makes a large number readable.
func thousands(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
