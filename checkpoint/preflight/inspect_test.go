package preflight

import (
	"slices"
	"strings"
	"testing"

	"crucible/container/proc"
)

// Each thing is found, in the right process and descriptor, and nothing else
// is said.
func TestThings(t *testing.T) {
	for name, thing := range things() {
		if special(name) {
			continue
		}
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			if thing.kind == "rlimit" && hasResource() {
				thing.kind, thing.mark = "", ""
			}
			b := startBox(t, name)
			check(t, b, thing, b.inspect(Options{}))
		})
	}
}

func check(t *testing.T, b *box, want thing, r Report) {
	t.Helper()
	pid := b.pid
	if b.held.Child != 0 {
		pid = b.hostPid(b.held.Child)
	}
	found := false
	for _, f := range r.Findings {
		t.Log(f)
		if f.Kind != want.kind || f.Pid != pid && f.Pid != 0 {
			if !slices.Contains(want.also, f.Kind) {
				t.Errorf("found too: %+v", f)
			}
			continue
		}
		if found {
			t.Errorf("found twice: %+v", f)
		}
		found = true
		if f.Blocks != (want.mark == blocks) || f.Lost != (want.mark == lost) {
			t.Errorf("blocks %t, lost %t: is to be %q", f.Blocks, f.Lost, want.mark)
		}
		if f.Pid != 0 && f.Command != "box" {
			t.Errorf("command %q", f.Command)
		}
		if fd := b.held.FD; f.FD != fd && (fd > 0 || f.FD != -1) {
			t.Errorf("descriptor %d, is to be %d", f.FD, fd)
		}
		if b.held.Path != "" && f.Path != b.held.Path {
			t.Errorf("path %q, is to be %q", f.Path, b.held.Path)
		}
		if f.What == "" || f.Blocks && f.Remedy == "" {
			t.Errorf("no sentence or no remedy: %+v", f)
		}
	}
	if want.kind != "" && !found {
		t.Errorf("%s of pid %d is not found", want.kind, pid)
	}
	if want.more != nil && !want.more(r.Needs) {
		t.Errorf("needs %+v", r.Needs)
	}
	if !slices.IsSortedFunc(r.Findings, func(a, b Finding) int { return hit{Finding: b}.weight() - hit{Finding: a}.weight() }) {
		t.Errorf("what blocks does not come first")
	}
}

func hasResource() bool {
	l := &look{}
	return l.limitsAreReadable()(other())
}

func other() (s proc.Status) {
	s.UIDs = [4]uint32{1, 1, 1, 1}
	return s
}
