package checkpoint

import (
	"strings"
	"testing"

	"crucible/container"
	"crucible/images"
	"crucible/proto/imagepb"
)

// tracked makes an image as a checkpoint with tracked memory does.
func tracked(t *testing.T, s images.Store, name string, state container.State, at int64) *images.Image {
	t.Helper()
	d, err := s.Draft(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	m := &imagepb.Manifest{CreatedUnixNs: at, Writer: &imagepb.Writer{BootId: state.Boot}}
	if state.Init.Pid != 0 {
		m.Tracking = &imagepb.Tracking{InitPid: int32(state.Init.Pid), InitStartTicks: state.Init.Start}
	}
	i, err := d.Commit(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestJudgeParent(t *testing.T) {
	s := images.Store{Dir: t.TempDir()}
	now := container.State{Boot: "boot", Init: container.Process{Pid: 7, Start: 70}}
	restarted, reused, booted := now, now, now
	restarted.Init.Pid, reused.Init.Start, booted.Boot = 8, 71, "another"
	first := tracked(t, s, "web", now, 1000)
	last := tracked(t, s, "web", now, 2000)
	for name, c := range map[string]struct {
		parent  *images.Image
		tracked int64 // of the container
		want    string
		remedy  string
	}{
		"the last":                         {last, 2000, "", ""},
		"an earlier one":                   {first, 2000, "only what has changed since web@2 is known", "--parent web@2"},
		"the last but for a failure":       {last, 3000, "which has failed or whose image was removed", "checkpoint -R web"},
		"never tracked, as far as we know": {last, 0, "which has failed or whose image was removed", "checkpoint -R web"},
		"another container's":              {tracked(t, s, "db", now, 2000), 2000, "another container", "--parent web@2"},
		"not tracked":                      {tracked(t, s, "web", container.State{Boot: "boot"}, 2000), 2000, "not asked to mark", "--parent web@2"},
		"of another process":               {tracked(t, s, "web", restarted, 2000), 2000, "started or restored since", "--parent web@2"},
		"of a pid that was used again":     {tracked(t, s, "web", reused, 2000), 2000, "started or restored since", "--parent web@2"},
		"of before a reboot":               {tracked(t, s, "web", booted, 2000), 2000, "started or restored since", "--parent web@2"},
	} {
		t.Run(name, func(t *testing.T) {
			state := now
			state.Tracked = c.tracked
			got := judgeParent(c.parent, "web", state)
			if c.want == "" {
				if len(got) > 0 {
					t.Errorf("%v", got)
				}
				return
			}
			if len(got) != 1 || !got[0].Blocks || !strings.Contains(got[0].What, c.want) || !strings.Contains(got[0].Remedy, c.remedy) || got[0].Path != c.parent.Ref() {
				t.Errorf("%+v, want %q and %q", got, c.want, c.remedy)
			}
		})
	}
}
