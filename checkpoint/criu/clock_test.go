package criu

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestOpened(t *testing.T) {
	const log = "(00.000100) first\n(00.002000) before the question\nhelper\n(00.007000) after the answer\n(00.009000) last\n"
	lines, err := ParseLog(strings.NewReader(log))
	fatal(t, err)
	at := int64(strings.Index(log, "helper"))
	base := time.Unix(1000, 0)
	ms := func(n float64) time.Time { return base.Add(time.Duration(n * float64(time.Millisecond))) }
	mark := Mark{Script: PreDump, Asked: ms(12.5), Answered: ms(16.8), LogBytes: at}
	for _, x := range []struct {
		name             string
		marks            []Mark
		sent, done       time.Time
		earliest, latest time.Time
	}{
		{"a mark", []Mark{mark}, time.Time{}, time.Time{}, ms(9.8), ms(10.5)},
		{"no answer yet", []Mark{{Asked: ms(12.5), LogBytes: at}}, ms(5), time.Time{}, ms(5), ms(10.5)},
		{"its end tells more", []Mark{mark}, time.Time{}, ms(19.1), ms(9.8), ms(10.1)},
		{"its beginning tells more", []Mark{mark}, ms(10.2), time.Time{}, ms(10.2), ms(10.5)},
		{"no mark", nil, ms(3), ms(15), ms(3), ms(6)},
		{"a clock that was set", []Mark{{Asked: ms(2.5), Answered: ms(16.8), LogBytes: at}}, time.Time{}, time.Time{}, ms(0.5), ms(0.5)},
	} {
		earliest, latest := Opened(lines, x.marks, x.sent, x.done)
		if !earliest.Equal(x.earliest) || !latest.Equal(x.latest) {
			t.Errorf("%s: %v to %v", x.name, earliest.Sub(base), latest.Sub(base))
		}
	}
}

// The marks of a real dump and restore tell within a millisecond or so when
// CRIU opened its log.
func TestMarks(t *testing.T) {
	c := theCRIU(t)
	w := startWorkload(t, "beat:2")
	images := openDir(t, t.TempDir())
	check := func(op string, sent time.Time, r *Result, events int) {
		t.Helper()
		data, err := os.ReadFile(images.Name() + "/criu.log")
		fatal(t, err)
		lines, err := ParseLog(strings.NewReader(string(data)))
		fatal(t, err)
		earliest, latest := Opened(lines, r.Marks, sent, r.Done)
		t.Logf("%s: opened %v to %v after the request, of %v", op, earliest.Sub(sent), latest.Sub(sent), r.Done.Sub(sent))
		if earliest.Before(sent) || latest.Before(earliest) || latest.After(r.Done) || latest.Sub(earliest) > 20*time.Millisecond {
			t.Errorf("%s: opened between %v and %v", op, earliest.Sub(sent), latest.Sub(sent))
		}
		if len(r.Marks) != events {
			t.Errorf("%s: %d marks", op, len(r.Marks))
		}
		last := int64(0)
		for _, m := range r.Marks {
			if m.LogBytes < last || m.LogBytes > int64(len(data)) || m.LogBytes == 0 || m.Answered.Before(m.Asked) {
				t.Errorf("%s: %+v", op, m)
			}
			last = m.LogBytes
		}
	}
	sent := time.Now()
	p := start(t, c, StartOptions{})
	r, err := p.Dump(t.Context(), DumpOptions{Common: Common{Images: images}, Pid: w.pid}, nil)
	fatal(t, err)
	p.Close()
	w.gone()
	check("dump", sent, r, 3)
	sent = time.Now()
	r, err = start(t, c, StartOptions{}).Restore(t.Context(), RestoreOptions{Common: Common{Images: images}, Sibling: true}, nil)
	fatal(t, err)
	defer reapTree(r.Pid)
	check("restore", sent, r, 4)
}
