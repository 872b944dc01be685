package checkpoint

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"crucible/checkpoint/criu"
	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// Steps follow upon each other from the start on; what is beside them does not
// matter, and where the command has nothing to do there is a gap.
func TestTimelineSteps(t *testing.T) {
	began := time.Now().Add(-10 * time.Millisecond)
	line := NewTimeline(began)
	line.Step("first", false)
	line.StepAt(began.Add(2*time.Millisecond), "second", true)
	line.Begin("beside", true)()
	line.StepAt(began.Add(5*time.Millisecond), "", false)
	line.StepAt(began.Add(6*time.Millisecond), "third", false)
	open := line.Phases()
	if last := open[2]; last.Name != "third" || last.Duration <= 0 {
		t.Errorf("a step under way: %+v", last)
	}
	line.Stop()
	marks := []criu.Mark{{Script: criu.PreDump, Asked: began.Add(time.Millisecond), Answered: began.Add(3 * time.Millisecond), LogBytes: 7}, {Script: criu.PostDump, Asked: began.Add(4 * time.Millisecond)}}
	path := filepath.Join(t.TempDir(), "timeline")
	line.Keep(path, marks)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept imagepb.Timeline
	if err := frame.Decode(data, &kept); err != nil {
		t.Fatal(err)
	}
	at := map[string][2]int64{}
	for _, p := range kept.Phases {
		at[p.Name] = [2]int64{p.StartNs, p.StartNs + p.DurationNs}
		if p.Frozen != (p.Name == "second" || p.Name == "beside") || (p.Track == Beside) != (p.Name == "beside") {
			t.Errorf("%+v", p)
		}
	}
	if at["first"] != [2]int64{0, 2e6} || at["second"] != [2]int64{2e6, 5e6} || at["third"][0] != 6e6 || at["third"][1] > kept.EndedNs || len(kept.Phases) != 4 {
		t.Errorf("%v of %d", at, kept.EndedNs)
	}
	if m := kept.Marks; len(m) != 2 || m[0].AskedNs != 1e6 || m[0].AnsweredNs != 3e6 || m[0].LogBytes != 7 || m[1].AnsweredNs != 0 {
		t.Errorf("marks %v", m)
	}
}

func TestProcessStarted(t *testing.T) {
	if since := time.Since(ProcessStarted()); since < 0 || since > time.Hour {
		t.Errorf("%v ago", since)
	}
}
