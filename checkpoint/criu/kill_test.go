package criu

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestKillDuringDump kills CRIU at random points of a dump, and counts what
// becomes of the tasks. It passes whatever that is, for the kernel gives no
// promise: what was found is in doc.go, and is why nothing here kills CRIU
// during a dump unless it is told to. CRUCIBLE_CRIU_KILLS says how often.
func TestKillDuringDump(t *testing.T) {
	c := theCRIU(t)
	kills := 3
	if n, err := strconv.Atoi(os.Getenv("CRUCIBLE_CRIU_KILLS")); err == nil {
		kills = n
	}
	const n = 3
	count := map[string]int{}
	var length time.Duration
	for i := range kills + 1 {
		w, f, beats := inFreezer(t, n)
		mustBeat(t, beats, n)
		images := openDir(t, t.TempDir())
		p := start(t, c, StartOptions{})
		var began time.Time
		killer := time.NewTimer(time.Hour)
		ready := func(e Event) error {
			if e.Script == PreDump {
				began = time.Now()
				if i > 0 {
					killer = time.AfterFunc(rand.N(length), p.Kill)
				}
			}
			return nil
		}
		_, err := p.Dump(t.Context(), DumpOptions{Common: Common{Images: images, logLevel: 4},
			Pid: w.pid, LeaveRunning: true, FreezeCgroup: f.dir}, f.freezing(ready))
		killer.Stop()
		p.Close()
		if i == 0 { // the first one is for its length
			fatal(t, err)
			length = time.Since(began)
			continue
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || !e.Killed) {
			t.Errorf("killed, and the error is %v", err)
		}
		frozen := f.frozen()
		f.thaw()
		count[fmt.Sprintf("killed %v, group frozen %v, %s", err != nil, frozen, health(w, beats, n))]++
		w.kill()
	}
	for what, times := range count {
		t.Logf("%4d %s", times, what)
	}
}

// health says what became of a tree.
func health(w *workload, beats []uint64, n int) string {
	who := stuck(beats, n)
	dead, parasites := 0, 0
	for _, pid := range w.tree {
		if !lives(pid) {
			dead++
		}
		maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if strings.Contains(string(maps), "rwxs") || strings.Contains(string(maps), "CRIUMFD") {
			parasites++
		}
	}
	switch {
	case dead > 0:
		return "a task died"
	case len(who) > 0:
		return "a task stands still"
	case parasites > 0:
		return "all go on, the parasite's memory is left in one"
	}
	return "all go on"
}

// lives says whether a process is there, and no zombie.
func lives(pid int) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return len(status) > 0 && !strings.Contains(string(status), "State:\tZ")
}
