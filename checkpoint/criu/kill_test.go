package criu

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestKillDuringDump kills CRIU at random points of a dump. What it may cost is
// counted: a task, or memory, for the kernel gives no promise (doc.go, which is
// why nothing here kills CRIU during a dump unless it is told to). What must
// hold at every point is checked: the kill is in the error, CRIU is gone and
// traces nobody, and once the group is thawed the tasks that live go on.
// CRUCIBLE_CRIU_KILLS says how many kills must hit.
func TestKillDuringDump(t *testing.T) {
	c := theCRIU(t)
	kills := 10
	if n, err := strconv.Atoi(os.Getenv("CRUCIBLE_CRIU_KILLS")); err == nil {
		kills = n
	}
	count := map[string]int{}
	length := dumpLength(t, c)
	hits := 0
	for try := 0; hits < kills && try < 10*kills+10; try++ {
		if killed, what := killOnce(t, c, rand.N(length)); killed {
			hits++
			count[what]++
		}
	}
	if hits < kills {
		t.Errorf("%d of %d kills came before the end of a dump of %v", hits, kills, length)
	}
	for what, times := range count {
		t.Logf("%4d %s", times, what)
	}
}

// dumpLength is how long the dump of a tree takes from where it is frozen.
func dumpLength(t *testing.T, c *CRIU) time.Duration {
	t.Helper()
	w, f, beats := inFreezer(t, killTasks)
	defer w.kill()
	defer f.thaw()
	mustBeat(t, beats, killTasks)
	var began time.Time
	p := start(t, c, StartOptions{})
	_, err := p.Dump(t.Context(), DumpOptions{Common: Common{Images: openDir(t, t.TempDir()), logLevel: 4}, Pid: w.pid, LeaveRunning: true, FreezeCgroup: f.dir},
		f.freezing(func(e Event) error {
			if e.Script == PreDump {
				began = time.Now()
			}
			return nil
		}))
	fatal(t, err)
	return time.Since(began)
}

// killTasks are the processes of the tree that is dumped.
const killTasks = 3

// killOnce kills CRIU some time after it was told to begin, and says what
// became of the tasks, unless the dump was faster.
func killOnce(t *testing.T, c *CRIU, after time.Duration) (killed bool, what string) {
	t.Helper()
	w, f, beats := inFreezer(t, killTasks)
	defer w.kill()
	defer f.thaw()
	mustBeat(t, beats, killTasks)
	p := start(t, c, StartOptions{})
	killer := time.NewTimer(time.Hour)
	_, err := p.Dump(t.Context(), DumpOptions{Common: Common{Images: openDir(t, t.TempDir()), logLevel: 4}, Pid: w.pid, LeaveRunning: true, FreezeCgroup: f.dir},
		f.freezing(func(e Event) error {
			if e.Script == PreDump {
				killer = time.AfterFunc(after, p.Kill)
			}
			return nil
		}))
	killer.Stop()
	p.Close()
	if lives(p.Pid()) {
		t.Errorf("CRIU %d lives", p.Pid())
	}
	var e *Error
	if err != nil && (!errors.As(err, &e) || !e.Killed) {
		t.Fatalf("killed after %v, and the error is %v", after, err)
	}
	frozen := f.frozen()
	f.thaw()
	return err != nil, fmt.Sprintf("group frozen %v, %s", frozen, health(t, w, beats))
}

// health says what became of the tree, and sees to it that what lives goes on.
func health(t *testing.T, w *workload, beats []uint64) string {
	t.Helper()
	// The root of the tree has the last two counters. A task that dies of what
	// CRIU left in its registers does so when it runs again.
	who := stuck(beats, killTasks, func(i int) bool { return lives(w.tree[killTasks-i/2]) })
	dead := slices.DeleteFunc(slices.Clone(w.tree), lives)
	parasites := 0
	for _, pid := range w.tree {
		maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if strings.Contains(string(maps), "rwxs") || strings.Contains(string(maps), "CRIUMFD") {
			parasites++
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if lives(pid) && !strings.Contains(string(status), "TracerPid:\t0\n") {
			t.Errorf("task %d is traced:\n%s", pid, status)
		}
	}
	switch {
	case len(who) > 0:
		t.Errorf("counters %v stand still, and the dead are %v of %v", who, dead, w.tree)
		return "a task stands still"
	case len(dead) > 0:
		return "a task died"
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
