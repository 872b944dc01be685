package criu

import (
	"slices"
	"testing"
)

// The order of events that doc.go tells of, where CRIU is outside of the
// tree's network namespace and so locks and saves it.
func TestOrderOutside(t *testing.T) {
	c := theCRIU(t)
	b := startBoxed(t, "idle")
	images := openDir(t, t.TempDir())
	var events []string
	note := func(e Event) error { events = append(events, e.Script); return nil }
	common := Common{Images: images, logLevel: 4, NetworkLock: LockSkip}
	for _, leave := range []bool{true, false} {
		events = nil
		p := start(t, c, StartOptions{})
		if _, err := p.Dump(t.Context(), DumpOptions{Common: common, Pid: b.pid, LeaveRunning: leave}, note); err != nil {
			t.Fatalf("%v\n%s", err, logOf(images))
		}
		p.Close()
		want := []string{PreDump, NetworkLock, QueryExternalFiles, PostDump}
		if leave {
			want = append(want, NetworkUnlock)
		}
		if !slices.Equal(events, want) {
			t.Errorf("left running %v: %v", leave, events)
		}
	}
	b.gone()
	events = nil
	p := start(t, c, StartOptions{})
	res, err := p.Restore(t.Context(), RestoreOptions{Common: common, Root: b.Root, Sibling: true}, note)
	if err != nil {
		t.Fatalf("%v\n%s", err, logOf(images))
	}
	defer reapTree(res.Pid)
	want := []string{PreRestore, SetupNamespaces, PostSetupNamespaces, PostRestore, NetworkUnlock, PreResume, PostResume}
	if !slices.Equal(events, want) {
		t.Errorf("restore: %v", events)
	}
}
