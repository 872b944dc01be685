package timeline

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"crucible/checkpoint/criu"
	"crucible/proto/imagepb"
)

// Trace is where the time of a checkpoint or a restore went.
type Trace struct {
	Title     string        `json:"title"`
	Started   time.Time     `json:"started"`
	Total     time.Duration `json:"totalNs"`     // until it was recorded
	Accounted time.Duration `json:"accountedNs"` // of that, what a step of the command or its monitor fills
	Frozen    time.Duration `json:"frozenNs"`    // of that, when the container stood still
	Margin    time.Duration `json:"marginNs"`    // how exactly CRIU's times are known against ours; 0: there is no log
	Tracks    []Track       `json:"tracks"`
}

// Kind is who did something.
type Kind string

// The kinds of tracks.
const (
	Command   Kind = "command"
	Monitor   Kind = "monitor"
	Beside    Kind = "beside"
	CRIU      Kind = "criu"
	Questions Kind = "questions"
	Task      Kind = "task"
)

// Track is a row of spans.
type Track struct {
	Name  string `json:"name"`
	Kind  Kind   `json:"kind"`
	Pid   int    `json:"pid,omitempty"` // of a task, by the number CRIU gives it
	Spans []Span `json:"spans"`
}

// Span is a stretch of time.
type Span struct {
	Name     string        `json:"name"`
	Depth    int           `json:"depth"`
	Start    time.Duration `json:"startNs"`
	Duration time.Duration `json:"durationNs"`
	Frozen   bool          `json:"frozen,omitempty"`
	Pages    uint64        `json:"pages,omitempty"` // of memory, written or read
	Bytes    uint64        `json:"bytes,omitempty"` // the same
}

// End is when it ended.
func (s Span) End() time.Duration { return s.Start + s.Duration }

// Options of Join. The zero value works.
type Options struct {
	Title    string
	Tasks    map[int]string // what tasks call themselves, where the log does not say
	PageSize uint64         // 0: 4096
}

// Join makes a trace of a timeline and the log of CRIU that belongs to it; nil:
// there is none.
func Join(line *imagepb.Timeline, log io.Reader, o Options) (*Trace, error) {
	t := &Trace{Title: o.Title, Started: time.Unix(0, line.StartedUnixNs), Total: time.Duration(line.EndedNs)}
	t.addPhases(line.Phases)
	if t.Total <= 0 || t.Total > longest { // written by a crucible that did not say
		t.Total = 0
		for _, track := range t.Tracks {
			for _, s := range track.Spans {
				t.Total = max(t.Total, s.End())
			}
		}
	}
	t.Accounted, t.Frozen = t.union(false), t.union(true)
	if log == nil {
		return t, nil
	}
	lines, err := criu.ParseLog(log)
	if err != nil {
		return nil, fmt.Errorf("read CRIU's log: %w", err)
	}
	if spans := criu.Spans(lines); len(spans) > 0 {
		t.addCRIU(spans, lines, line, o)
	} else {
		t.addBetween(line.Marks)
	}
	t.addQuestions(line.Marks)
	slices.SortStableFunc(t.Tracks, func(a, b Track) int { return cmp.Compare(a.Kind.order(), b.Kind.order()) })
	return t, nil
}

func (k Kind) order() int {
	return slices.Index([]Kind{Command, Monitor, Beside, Questions, CRIU, Task}, k)
}

// addPhases makes the tracks of what crucible has measured itself.
func (t *Trace) addPhases(phases []*imagepb.Phase) {
	var beside []Span
	for _, p := range phases {
		s := Span{Name: p.Name, Start: time.Duration(p.StartNs), Duration: time.Duration(p.DurationNs), Frozen: p.Frozen}
		if !s.sane() {
			continue
		}
		switch p.Track {
		case "":
			t.add(Command, "crucible", s)
		case string(Monitor):
			t.add(Monitor, "monitor", s)
		default:
			beside = append(beside, s)
		}
	}
	t.addBeside(beside)
}

// longest is longer than any checkpoint: a time beyond it is nonsense, and
// reckoning with it would overflow.
const longest = 100 * 24 * time.Hour

func (s Span) sane() bool {
	return s.Start >= -longest && s.Start <= longest && s.Duration >= 0 && s.Duration <= longest
}

// add appends to a track, which it makes if there is none.
func (t *Trace) add(kind Kind, name string, spans ...Span) {
	for i := range t.Tracks {
		if t.Tracks[i].Kind == kind && t.Tracks[i].Name == name {
			t.Tracks[i].Spans = append(t.Tracks[i].Spans, spans...)
			return
		}
	}
	t.Tracks = append(t.Tracks, Track{Name: name, Kind: kind, Spans: spans})
}

// maxBeside is how many tracks there are for what ran beside the command.
const maxBeside = 16

// addBeside puts each span on the first of the tracks that has room for it.
func (t *Trace) addBeside(spans []Span) {
	slices.SortStableFunc(spans, func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	var ends [maxBeside]time.Duration
	for _, s := range spans {
		for n := range ends {
			if s.Start < ends[n] && n+1 < maxBeside {
				continue
			}
			name := "beside"
			if n > 0 {
				name = fmt.Sprintf("beside %d", n+1)
			}
			ends[n] = max(ends[n], s.End())
			t.add(Beside, name, s)
			break
		}
	}
}

// union is how much of the whole is filled by steps of the command and of the
// monitor, or by those of them in which the container stood still.
func (t *Trace) union(frozen bool) (sum time.Duration) {
	var steps []Span
	for _, track := range t.Tracks {
		for _, s := range track.Spans {
			if (track.Kind == Command || track.Kind == Monitor) && (s.Frozen || !frozen) {
				steps = append(steps, s)
			}
		}
	}
	slices.SortFunc(steps, func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	at := time.Duration(0)
	for _, s := range steps {
		if from, end := max(at, s.Start), min(s.End(), t.Total); end > from {
			sum += end - from
			at = end
		}
	}
	return sum
}

// addCRIU makes the tracks of what CRIU and its tasks did.
func (t *Trace) addCRIU(spans []criu.Span, lines []criu.Line, line *imagepb.Timeline, o Options) {
	var marks []criu.Mark
	for _, m := range line.Marks {
		one := criu.Mark{Script: m.Event, Asked: t.Started.Add(time.Duration(m.AskedNs)), LogBytes: int64(m.LogBytes)}
		if m.AnsweredNs > 0 {
			one.Answered = t.Started.Add(time.Duration(m.AnsweredNs))
		}
		marks = append(marks, one)
	}
	sent, done := t.request()
	earliest, latest := criu.Opened(lines, marks, t.Started.Add(sent), t.Started.Add(done))
	t.Margin = max(latest.Sub(earliest), 1)
	shift := earliest.Add(t.Margin / 2).Sub(t.Started)
	page := cmp.Or(o.PageSize, 4096)
	tasks := map[int]int{} // where they are among the tracks
	for _, s := range spans {
		one := Span{Name: s.Name, Start: s.Start + shift, Duration: s.End - s.Start, Pages: s.Pages, Bytes: s.Pages * page}
		if s.Part {
			one.Depth = 1
		}
		if s.Pid == 0 {
			t.add(CRIU, "CRIU", one)
			continue
		}
		if at, ok := tasks[s.Pid]; ok {
			t.Tracks[at].Spans = append(t.Tracks[at].Spans, one)
			continue
		}
		name := fmt.Sprintf("task %d", s.Pid)
		if comm := cmp.Or(s.Task, o.Tasks[s.Pid]); comm != "" {
			name += " " + comm
		}
		tasks[s.Pid] = len(t.Tracks)
		t.Tracks = append(t.Tracks, Track{Name: name, Kind: Task, Pid: s.Pid, Spans: []Span{one}})
	}
	t.stretch(line.Marks)
}

// request is about when CRIU was asked to begin, and when it had answered: all
// that is known of a pre-dump, during which CRIU asks nothing.
func (t *Trace) request() (sent, done time.Duration) {
	for _, track := range t.Tracks {
		for _, s := range track.Spans {
			if track.Kind == Command && s.Name == "CRIU pre-dump" {
				return s.Start, s.End()
			}
		}
	}
	return 0, t.Total
}

// stretch lets CRIU's last span last until the last question is answered: where
// the log was kept then, it has no later line.
func (t *Trace) stretch(marks []*imagepb.Mark) {
	if len(marks) == 0 {
		return
	}
	m := marks[len(marks)-1]
	end := time.Duration(m.AnsweredNs)
	if m.AnsweredNs == 0 {
		end = t.Total
	}
	for i := range t.Tracks {
		track := &t.Tracks[i]
		if n := len(track.Spans); track.Kind == CRIU && n > 0 {
			last := &track.Spans[n-1]
			if longer := (Span{Start: last.Start, Duration: end - last.Start}); longer.sane() {
				last.Duration = max(last.Duration, longer.Duration)
			}
		}
	}
}

// addBetween makes of a log without times what the questions tell: what CRIU did
// between them.
func (t *Trace) addBetween(marks []*imagepb.Mark) {
	names := map[string]string{
		criu.PreRestore:          "read the process tree",
		criu.SetupNamespaces:     "make the first task",
		criu.PostSetupNamespaces: "make namespaces and mounts",
		criu.PostRestore:         "restore the tasks",
		criu.PreResume:           "put memory in its place",
		criu.PostResume:          "let the tasks run",
		criu.PreDump:             "prepare",
		criu.QueryExternalFiles:  "seize the tasks",
		criu.PostDump:            "dump the tasks",
	}
	for i := 1; i < len(marks); i++ {
		from, to := marks[i-1], marks[i]
		s := Span{Name: names[to.Event], Start: time.Duration(from.AnsweredNs), Duration: time.Duration(to.AskedNs - from.AnsweredNs)}
		if s.Name != "" && from.AnsweredNs > 0 && s.sane() {
			t.add(CRIU, "CRIU", s)
		}
	}
}

// addQuestions makes the track of what CRIU waited for.
func (t *Trace) addQuestions(marks []*imagepb.Mark) {
	for _, m := range marks {
		end := m.AnsweredNs
		if end == 0 {
			end = int64(t.Total)
		}
		s := Span{Name: m.Event, Start: time.Duration(m.AskedNs), Duration: time.Duration(end - m.AskedNs)}
		if s.sane() {
			t.add(Questions, "CRIU asks", s)
		}
	}
}
