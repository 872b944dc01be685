package criu

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The logs are of a python3 with two threads, a child and a TCP connection to
// itself: a checkpoint that left it running, and a restore.
func TestSpans(t *testing.T) {
	for _, op := range []string{"dump", "restore"} {
		t.Run(op, func(t *testing.T) {
			data, err := os.ReadFile("testdata/spans/" + op + ".log")
			fatal(t, err)
			lines, err := ParseLog(bytes.NewReader(data))
			fatal(t, err)
			spans := Spans(lines)
			checkSpans(t, lines, spans)
			var golden strings.Builder
			for _, s := range spans {
				indent := ""
				if s.Part {
					indent = "  "
				}
				fmt.Fprintf(&golden, "%6d %9.3f %9.3f %6d  %s\n", s.Pid, ms(s.Start), ms(s.End-s.Start), s.Pages, strings.TrimSpace(indent+s.Name+" "+s.Task))
			}
			file := "testdata/spans/" + op + ".golden"
			if *update {
				fatal(t, os.WriteFile(file, []byte(golden.String()), 0o644))
			}
			want, err := os.ReadFile(file)
			fatal(t, err)
			if golden.String() != string(want) {
				t.Errorf("not as in %s:\n%s", file, golden.String())
			}
		})
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// checkSpans: CRIU's own follow upon each other without a gap, from the opening
// of the log to its last line; the parts of a task too, from its beginning to
// its end.
func checkSpans(t *testing.T, lines []Line, spans []Span) {
	t.Helper()
	last := lastTimed(lines)
	ends := map[int]time.Duration{}
	whole := map[int]Span{}
	for _, s := range spans {
		if s.End < s.Start || s.Name == "" {
			t.Errorf("span %+v", s)
		}
		switch {
		case s.Pid != 0 && !s.Part:
			if w, twice := whole[s.Pid]; twice && w.End > s.Start {
				t.Errorf("a second whole %+v", s)
			}
			whole[s.Pid], ends[s.Pid] = s, s.Start
		case s.Pid == 0 && s.Part:
			t.Errorf("a part of nothing: %+v", s)
		default:
			if d := s.Start - ends[s.Pid]; d < 0 || d > 3*time.Microsecond {
				t.Errorf("pid %d: %v between %q and what was before it", s.Pid, d, s.Name)
			}
			ends[s.Pid] = s.End
		}
	}
	for pid, w := range whole {
		if ends[pid] != w.End {
			t.Errorf("pid %d: its parts end at %v, it at %v", pid, ends[pid], w.End)
		}
	}
	if last != nil && ends[0] != last.At {
		t.Errorf("CRIU's own end at %v, the log at %v", ends[0], last.At)
	}
}

// FuzzSpans: whatever is in a log, no span ends before it begins, and there are
// not many more than lines.
func FuzzSpans(f *testing.F) {
	for _, name := range []string{"testdata/spans/dump.log", "testdata/spans/restore.log"} {
		data, err := os.ReadFile(name)
		fatal(f, err)
		f.Add(string(data))
	}
	f.Add("(00.1) Dumping task (pid: 3 comm: )\n(00.2) Dumping pages (type: 59 pid: 3)\n(00.3) Pagemap generated: 99999999999999999999 pages\n")
	f.Add("(00.1) Forking task with 7 pid\n(00.2) 7: nr_restored_pages: 1\n(00.1) 7: Restored\n(00.3) 7: Forking task with 8 pid\n")
	f.Fuzz(func(t *testing.T, log string) {
		lines, err := ParseLog(strings.NewReader(log))
		fatal(t, err)
		spans := Spans(lines)
		if len(spans) > 2*len(lines)+2 {
			t.Errorf("%d spans of %d lines", len(spans), len(lines))
		}
		for _, s := range spans {
			if s.End < s.Start || s.Name == "" || s.Pid < 0 {
				t.Errorf("%+v", s)
			}
		}
		earliest, latest := Opened(lines, []Mark{{Asked: time.Unix(5, 0), Answered: time.Unix(6, 0), LogBytes: int64(len(log) / 2)}}, time.Time{}, time.Unix(9, 0))
		if latest.Before(earliest) {
			t.Errorf("opened between %v and %v", earliest, latest)
		}
	})
}
