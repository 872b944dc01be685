package checkpoint

import (
	"sync"
	"time"

	"crucible/proto/imagepb"
)

// Phase is one stretch of a checkpoint or a restore.
type Phase struct {
	Name     string        `json:"name"`
	Start    time.Duration `json:"start"`    // nanoseconds since the command's own start
	Duration time.Duration `json:"duration"` // nanoseconds
	Frozen   bool          `json:"frozen,omitempty"`
}

// Timeline records where the time goes. Phases may overlap.
type Timeline struct {
	Started time.Time
	mu      sync.Mutex
	phases  []Phase
}

// NewTimeline starts the clock.
func NewTimeline() *Timeline { return &Timeline{Started: time.Now()} }

// Begin opens a phase; the function that it returns ends it.
func (t *Timeline) Begin(name string, frozen bool) (end func()) {
	start := time.Now()
	return func() { t.Add(name, start, time.Since(start), frozen) }
}

// Add records a phase that somebody else measured.
func (t *Timeline) Add(name string, start time.Time, d time.Duration, frozen bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phases = append(t.phases, Phase{Name: name, Start: start.Sub(t.Started), Duration: d, Frozen: frozen})
}

// Phases are what was recorded so far, in the order in which they ended.
func (t *Timeline) Phases() []Phase {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Phase(nil), t.phases...)
}

// Proto is the timeline as timeline.pb holds it.
func (t *Timeline) Proto() *imagepb.Timeline {
	out := &imagepb.Timeline{StartedUnixNs: t.Started.UnixNano()}
	for _, p := range t.Phases() {
		out.Phases = append(out.Phases, &imagepb.Phase{Name: p.Name, StartNs: int64(p.Start), DurationNs: int64(p.Duration), Frozen: p.Frozen})
	}
	return out
}
