package cgroup

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"crucible/container/proc"
)

// StuckError says which tasks did not do what the group was told: freeze, or
// end after SIGKILL.
type StuckError struct {
	Verb  string // "freeze" or "end"
	After time.Duration
	Tasks []Task // none: it could not be told
}

// Task is a thread that is in the way.
type Task struct {
	PID         int    `json:"pid"`
	TID         int    `json:"tid"`
	Comm        string `json:"comm"`
	State       string `json:"state"`                 // of /proc/PID/stat: "D" waits for a disk or a server
	WaitChannel string `json:"waitChannel,omitempty"` // the kernel function it waits in
}

func (t Task) String() string {
	s := fmt.Sprintf("pid %d (%s), state %s", t.PID, t.Comm, t.State)
	if t.TID != t.PID {
		s = fmt.Sprintf("thread %d of ", t.TID) + s
	}
	if t.WaitChannel != "" {
		s += ", waits in " + t.WaitChannel
	}
	return s
}

func (e *StuckError) Error() string {
	s := fmt.Sprintf("did not %s within %v", e.Verb, e.After.Round(time.Millisecond))
	if len(e.Tasks) == 0 {
		return s
	}
	const most = 3
	var names []string
	for _, t := range e.Tasks[:min(most, len(e.Tasks))] {
		names = append(names, t.String())
	}
	if n := len(e.Tasks) - most; n > 0 {
		names = append(names, fmt.Sprintf("and %d more", n))
	}
	return s + ": " + strings.Join(names, "; ")
}

// unfrozen lists the tasks of a group that is being frozen and of which it is
// certain that they are not there yet.
//
// On v2 a frozen task sleeps in do_freezer_trap (which compilers put into
// get_signal), is stopped or traced, or is the parent of a vfork. On v1
// it shows state D, in __refrigerator or, from Linux 6.1 on, wherever it slept
// when the freezer met it (commit f5d39b020809); a task that waits for a disk
// shows D as well, so that those are left for stuck to tell apart.
func (g *Group) unfrozen() []Task {
	trapped := []string{"do_freezer_trap", "get_signal"}
	vforkParent := []string{"wait_for_vfork_done", "kernel_clone", "_do_fork"}
	v2 := g.leaves[0].Version == 2
	return g.tasks(func(t Task) bool {
		switch t.State {
		case "D":
			return v2 && !slices.Contains(vforkParent, t.WaitChannel)
		case "T", "t", "Z", "X":
			return false
		case "S":
			return !v2 || t.WaitChannel != "" && !slices.Contains(trapped, t.WaitChannel)
		}
		return true
	})
}

// stuck makes the error, with the group thawed again: a task that is in state D
// even now was so before, and could not be frozen for that. It goes first;
// those that ran may just not have had a CPU.
func (g *Group) stuck(after time.Duration, running []Task) error {
	pause(time.Millisecond) // those that were woken leave their state D
	waiting := g.tasks(func(t Task) bool { return t.State == "D" })
	for _, t := range running {
		if !slices.ContainsFunc(waiting, func(w Task) bool { return w.TID == t.TID }) {
			waiting = append(waiting, t)
		}
	}
	return &StuckError{Verb: "freeze", After: after, Tasks: waiting}
}

// tasks lists the group's threads that pick says yes to.
func (g *Group) tasks(pick func(Task) bool) []Task {
	file := "tasks"
	if g.leaves[0].Version == 2 {
		file = "cgroup.threads"
	}
	tids, err := g.list(file)
	if err != nil {
		return nil
	}
	var all []Task
	for _, tid := range tids {
		stat, err := proc.Root.Stat(tid)
		if err != nil {
			continue
		}
		t := Task{PID: tid, TID: tid, Comm: stat.Comm, State: stat.State, WaitChannel: proc.Root.WaitChannel(tid)}
		if !pick(t) {
			continue
		}
		if status, err := proc.Root.Status(tid); err == nil {
			t.PID = status.TGID
		}
		all = append(all, t)
	}
	return all
}
