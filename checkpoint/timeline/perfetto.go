package timeline

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// event is one of the Trace Event Format, which the Perfetto UI and
// chrome://tracing open. Its times are microseconds.
type event struct {
	Name     string         `json:"name"`
	Phase    string         `json:"ph"` // X: a span, M: about a process or a thread
	Category string         `json:"cat,omitempty"`
	At       *micros        `json:"ts,omitempty"`
	Duration *micros        `json:"dur,omitempty"`
	Pid      int            `json:"pid"`
	Tid      int            `json:"tid"`
	Args     map[string]any `json:"args,omitempty"`
}

// micros is a time in microseconds, exact to the nanosecond.
type micros time.Duration

func (m micros) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%d.%03d", int64(m)/1000, int64(m)%1000), nil
}

// The processes as which the Perfetto UI groups the tracks; it sorts them by
// these numbers.
const (
	groupContainer = 1 + iota
	groupCrucible
	groupCRIU
	groupTasks
)

func group(k Kind) int {
	switch k {
	case Command, Monitor, Beside:
		return groupCrucible
	case Task:
		return groupTasks
	}
	return groupCRIU
}

// WritePerfetto writes the trace for the Perfetto UI (ui.perfetto.dev).
func (t *Trace) WritePerfetto(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprint(out, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n")
	first := true
	for _, e := range t.events() {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if !first {
			fmt.Fprint(out, ",\n")
		}
		first = false
		_, _ = out.Write(data)
	}
	fmt.Fprint(out, "\n]}\n")
	return out.Flush()
}

func (t *Trace) events() []event {
	var all []event
	for i, name := range []string{t.Title, "crucible", "CRIU", "tasks"} {
		all = append(all,
			event{Name: "process_name", Phase: "M", Pid: i + 1, Args: map[string]any{"name": name}},
			event{Name: "process_sort_index", Phase: "M", Pid: i + 1, Args: map[string]any{"sort_index": i}})
	}
	all = append(all, event{Name: "thread_name", Phase: "M", Pid: groupContainer, Tid: 1, Args: map[string]any{"name": "the container"}})
	for _, s := range t.still() {
		all = append(all, span(s, groupContainer, 1, "container"))
	}
	for i, track := range t.Tracks {
		pid, tid := group(track.Kind), 10+i
		all = append(all,
			event{Name: "thread_name", Phase: "M", Pid: pid, Tid: tid, Args: map[string]any{"name": track.Name}},
			event{Name: "thread_sort_index", Phase: "M", Pid: pid, Tid: tid, Args: map[string]any{"sort_index": i}})
		for _, s := range track.Spans {
			all = append(all, span(s, pid, tid, string(track.Kind)))
		}
	}
	return all
}

func span(s Span, pid, tid int, category string) event {
	at, took := micros(max(s.Start, 0)), micros(max(s.Duration, 0))
	e := event{Name: s.Name, Phase: "X", Category: category, At: &at, Duration: &took, Pid: pid, Tid: tid}
	if s.Frozen {
		e.Args = map[string]any{"frozen": true}
	}
	if s.Pages > 0 {
		e.Args = map[string]any{"pages": s.Pages, "bytes": s.Bytes}
	}
	return e
}

// still are the stretches in which the container stood still, each of which is
// several steps of the command.
func (t *Trace) still() (spans []Span) {
	for _, track := range t.Tracks {
		if track.Kind != Command {
			continue
		}
		for _, s := range track.Spans {
			n := len(spans)
			switch {
			case !s.Frozen:
			case n > 0 && s.Start <= spans[n-1].End()+time.Microsecond:
				spans[n-1].Duration = max(spans[n-1].Duration, s.End()-spans[n-1].Start)
			default:
				spans = append(spans, Span{Name: "stands still", Start: s.Start, Duration: s.Duration})
			}
		}
	}
	return spans
}
