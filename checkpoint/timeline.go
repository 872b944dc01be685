package checkpoint

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"crucible/checkpoint/criu"
	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// Phase is one stretch of a checkpoint or a restore.
type Phase struct {
	Name     string        `json:"name"`
	Start    time.Duration `json:"start"`    // nanoseconds since the command's own start
	Duration time.Duration `json:"duration"` // nanoseconds
	Frozen   bool          `json:"frozen,omitempty"`
	Track    string        `json:"track,omitempty"` // none: a step of the command itself
}

// The tracks of a timeline. What has none is a step of the command: one follows
// upon the other.
const (
	Beside  = "beside"  // at the same time as the command's steps, one or several
	Monitor = "monitor" // steps of the container's monitor, for which the command waits
)

// Timeline records where the time goes.
type Timeline struct {
	Started time.Time
	mu      sync.Mutex
	phases  []Phase
	step    *Phase // the one under way
}

// NewTimeline begins at a time in the past, or now if it is zero.
func NewTimeline(started time.Time) *Timeline {
	if started.IsZero() {
		started = time.Now()
	}
	return &Timeline{Started: started}
}

// Step ends the step under way and begins another. The first one begins with
// the timeline, so that nothing is left out.
func (t *Timeline) Step(name string, frozen bool) { t.StepAt(time.Now(), name, frozen) }

// StepAt is Step at a time in the past. Without a name the command does nothing
// from then on.
func (t *Timeline) StepAt(at time.Time, name string, frozen bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	start := at.Sub(t.Started)
	if t.step == nil && len(t.phases) == 0 {
		start = 0
	}
	t.end(start)
	if name == "" { // nothing that the command does
		return
	}
	t.step = &Phase{Name: name, Start: start, Frozen: frozen}
}

// Stop ends the step under way.
func (t *Timeline) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(time.Since(t.Started))
}

func (t *Timeline) end(at time.Duration) {
	if t.step != nil {
		t.step.Duration = max(at-t.step.Start, 0)
		t.phases = append(t.phases, *t.step)
		t.step = nil
	}
}

// Begin opens a phase beside the steps; the function that it returns ends it.
func (t *Timeline) Begin(name string, frozen bool) (end func()) {
	start := time.Now()
	return func() {
		t.Add(Phase{Name: name, Start: start.Sub(t.Started), Duration: time.Since(start), Frozen: frozen, Track: Beside})
	}
}

// Add records a phase that somebody else measured.
func (t *Timeline) Add(p Phase) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phases = append(t.phases, p)
}

// Phases are what was recorded so far, in the order of their start; the step
// under way lasts until now.
func (t *Timeline) Phases() []Phase {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.Clone(t.phases)
	if t.step != nil {
		p := *t.step
		p.Duration = max(time.Since(t.Started)-p.Start, 0)
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b Phase) int { return int(a.Start - b.Start) })
	return all
}

// Proto is the timeline as timeline.pb holds it, with what joins it with CRIU's log.
func (t *Timeline) Proto(marks []criu.Mark) *imagepb.Timeline {
	out := &imagepb.Timeline{StartedUnixNs: t.Started.UnixNano(), EndedNs: int64(time.Since(t.Started))}
	for _, p := range t.Phases() {
		out.Phases = append(out.Phases, &imagepb.Phase{
			Name: p.Name, StartNs: int64(p.Start), DurationNs: int64(p.Duration), Frozen: p.Frozen, Track: p.Track,
		})
	}
	for _, m := range marks {
		one := &imagepb.Mark{Event: m.Script, AskedNs: int64(m.Asked.Sub(t.Started)), LogBytes: uint64(m.LogBytes)}
		if !m.Answered.IsZero() {
			one.AnsweredNs = int64(m.Answered.Sub(t.Started))
		}
		out.Marks = append(out.Marks, one)
	}
	return out
}

// Keep writes the timeline to a file, for who asks later. What it tells of is
// done, whether it can be written or not.
func (t *Timeline) Keep(path string, marks []criu.Mark) {
	data, err := frame.Encode(t.Proto(marks))
	if err != nil {
		return
	}
	// A new file: to truncate the old one makes ext4 write the new content to the
	// disk at once, some milliseconds (ext4(5): auto_da_alloc).
	_ = os.Remove(path)
	_ = os.WriteFile(path, data, 0o600)
}

// ProcessStarted is about when this process was made, if its first thread calls
// it early: /proc/self/schedstat (sched-stats.rst) has how long that thread has
// run and how long it has waited for a processor, in nanoseconds, where field 22
// of /proc/self/stat has steps of 10 ms. For what it slept (the disk, perhaps)
// it comes out too late. Where the kernel keeps no such statistics it is now.
func ProcessStarted() time.Time {
	now := time.Now()
	data, err := os.ReadFile("/proc/self/schedstat")
	if err != nil {
		return now
	}
	fields := strings.Fields(string(data))
	for _, f := range fields[:min(2, len(fields))] {
		ns, err := strconv.ParseInt(f, 10, 64)
		if err != nil || ns < 0 || ns > int64(time.Minute) {
			return now
		}
		now = now.Add(-time.Duration(ns))
	}
	return now
}
