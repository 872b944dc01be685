package criu

import (
	"time"

	"golang.org/x/sys/unix"
)

// Mark is an event by our clock, and how long CRIU's log was then: CRIU waits
// meanwhile, so every line before that place was written before the question,
// and every line behind it after the answer. It is what joins the times of the
// log, which begin with its opening, with ours.
type Mark struct {
	Script   string
	Asked    time.Time
	Answered time.Time // zero: not yet
	LogBytes int64
}

// Marks are the events of the request so far.
func (p *Process) Marks() []Mark { return append([]Mark(nil), p.marks...) }

// mark notes an event; the function that it returns notes the answer.
func (p *Process) mark(script string) (answered func()) {
	m := Mark{Script: script, Asked: time.Now()}
	var st unix.Stat_t
	if p.log != nil && unix.Fstatat(int(p.log.workDir().Fd()), p.log.logFile(), &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		m.LogBytes = st.Size
	}
	p.marks = append(p.marks, m)
	at := &p.marks[len(p.marks)-1]
	return func() { at.Answered = time.Now() }
}

// Opened says when CRIU opened a log, as far as its lines and the marks tell:
// between the two times. From bounds what is no mark: sent is when CRIU was asked
// to begin, done when its last word came; they may be zero.
func Opened(lines []Line, marks []Mark, sent, done time.Time) (earliest, latest time.Time) {
	earliest = sent
	after := func(t time.Time) { // it was opened no later than t
		if latest.IsZero() || t.Before(latest) {
			latest = t
		}
	}
	for _, m := range marks {
		before, behind := around(lines, m.LogBytes)
		if before != nil {
			after(m.Asked.Add(-before.At))
		}
		if behind != nil && !m.Answered.IsZero() {
			if t := m.Answered.Add(-behind.At); t.After(earliest) {
				earliest = t
			}
		}
	}
	if last := lastTimed(lines); last != nil && !done.IsZero() {
		after(done.Add(-last.At))
	}
	if latest.IsZero() {
		latest = earliest
	}
	if latest.Before(earliest) { // somebody has set the clock
		earliest = latest
	}
	return earliest, latest
}

// around finds the last line with a time before a place of the log, and the
// first one behind it.
func around(lines []Line, at int64) (before, behind *Line) {
	for i := range lines {
		switch l := &lines[i]; {
		case !l.Timed:
		case l.Offset < at:
			before = l
		default:
			return before, l
		}
	}
	return before, nil
}

func lastTimed(lines []Line) (last *Line) {
	for i := range lines {
		if lines[i].Timed {
			last = &lines[i]
		}
	}
	return last
}
