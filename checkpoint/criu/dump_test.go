package criu

import (
	"context"
	"slices"
	"testing"
	"time"
)

func TestDumpAndRestore(t *testing.T) {
	c := theCRIU(t)
	w := startWorkload(t, "beat:3")
	images := openDir(t, t.TempDir())
	var events []string
	note := func(e Event) error { events = append(events, e.Script); return nil }

	p := start(t, c, StartOptions{})
	v, err := p.Version(t.Context())
	fatal(t, err)
	if v.Less(Version{3, 0, 0}) {
		t.Errorf("version %v", v)
	}
	_, err = p.Dump(t.Context(), DumpOptions{Common: Common{Images: images, logLevel: 4}, Pid: w.pid}, note)
	if err != nil {
		t.Fatalf("%v\n%s", err, logOf(images))
	}
	fatal(t, p.Close())
	w.gone()
	t.Log(events)
	if !slices.Equal(events, []string{PreDump, QueryExternalFiles, PostDump}) {
		t.Errorf("events of a dump: %v", events)
	}

	beats, err := openBeats(w.Dir + "/beats")
	fatal(t, err)
	events = nil
	p = start(t, c, StartOptions{})
	res, err := p.Restore(t.Context(), RestoreOptions{Common: Common{Images: images, logLevel: 4}, Sibling: true}, note)
	if err != nil {
		t.Fatalf("%v\n%s", err, logOf(images))
	}
	defer reapTree(res.Pid)
	t.Log(events)
	if res.Pid != w.pid {
		t.Errorf("restored as %d, was %d", res.Pid, w.pid)
	}
	mustBeat(t, beats, 3)
}

// mustBeat sees to it that every thread of a tree goes on.
func mustBeat(t testing.TB, beats []uint64, processes int) {
	t.Helper()
	if who := stuck(beats, processes, func(int) bool { return true }); len(who) > 0 {
		t.Fatalf("counters %v of a tree of %d processes stand still", who, processes)
	}
}

// stuck are the counters that stand still of those that count.
func stuck(beats []uint64, processes int, counts func(i int) bool) []int {
	before := slices.Clone(beats)
	var who []int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		who = nil
		for i := 2; i < 2*processes+2; i++ {
			if load(beats, i) == before[i] && counts(i) {
				who = append(who, i)
			}
		}
		if len(who) == 0 {
			return nil
		}
	}
	return who
}

func TestCancelledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&CRIU{Path: "/bin/true"}).Start(ctx, StartOptions{}); err == nil {
		t.Error("a cancelled context starts CRIU")
	}
}
