package criu

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Span is a stretch of CRIU's work, as its log tells it.
type Span struct {
	Name  string
	Pid   int    // the task that it is about, by the number CRIU gives it; 0: CRIU itself
	Task  string // what that task calls itself, where the log says so
	Part  bool   // it is within the span of its task before it
	Start time.Duration
	End   time.Duration
	Pages uint64 // pages of memory that were written or read
}

// step says which line begins what.
type step struct {
	prefix string // of the line's text
	name   string // "": nothing in particular
}

// dumpSteps is what CRIU itself does during a dump, by the first line that it
// writes of it (criu/cr-dump.c: cr_dump_tasks; level 3 of the log).
func dumpSteps() []step {
	return []step{
		{"Dumping processes (pid:", "prepare"},
		{"Pre-dumping tasks (pid:", "prepare"},
		{"Preparing image inventory", "begin the inventory"},
		{"Seized task ", "seize the tasks"},
		{"Will take ", "collect namespaces"},
		{"net: Lock network", "lock the network"},
		{"RPC NOTIFY query-ext-files", "collect mounts"},
		{"type ", "collect mounts"},
		{"mnt: Building mountpoints tree", "collect mounts"},
		{"net: Collecting netns", "collect sockets"},
		{"Collecting netns", "collect sockets"},
		{"Collecting pidns", "collect process numbers"},
		{"Dumping task (pid:", "dump the tasks"},
		{"mnt: Dumping mountpoints", "write mounts"},
		{"Dumping file-locks", "write file locks"},
		{"Dumping pstree (pid:", "write the process tree"},
		{"Dump UTS namespace", "write namespaces"},
		{"Dump IPC namespace", "write namespaces"},
		{"Dump TIME namespace", "write namespaces"},
		{"cg:    `- Dumping ", "write cgroups"},
		{"Writing image inventory", "write the rest"},
		{"Unfreezing tasks into", "let the tasks go"},
		{"net: Unlock network", "unlock the network"},
		{"Writing stats", "write statistics"},
	}
}

// dumpTaskSteps is what is done to one task (criu/cr-dump.c: dump_one_task).
func dumpTaskSteps() []step {
	return []step{
		{"Obtaining task stat", "read its status"},
		{"Collecting mappings (pid:", "collect mappings"},
		{"Collecting fds (pid:", "collect descriptors"},
		{"Dump rseq of", "put the parasite in"},
		{"Set up parasite blob", "put the parasite in"},
		{"Parasite ", "ask the parasite"},
		{"Dumping opened files (pid:", "write files"},
		{"Dumping pages (type:", "write memory"},
		{"Dumping core (pid:", "write registers and state"},
		{"Dumping core for thread (pid:", "write threads"},
		{"Dumping mm (pid:", "write mappings"},
	}
}

// restoreSteps is what CRIU itself does during a restore (criu/cr-restore.c:
// cr_restore_tasks, restore_root_task).
func restoreSteps() []step {
	return []step{
		{"Reading image tree", "read the process tree"},
		{"Collecting ", "read the images"},
		{"mnt: Building mountpoints tree", "plan the mounts"},
		{"Forking task with", "make the first task"},
		{"Wait until namespaces are created", "wait for the tasks"},
		{"mnt: Switching to new ns to clean ghosts", "clean up"},
		{"net: Unlock network", "unlock the network"},
		{"Run late stage hook", "let the tasks run"},
		{"Writing stats", "write statistics"},
	}
}

// restoreTaskSteps is what a task does on its way back (criu/cr-restore.c:
// restore_task_with_children, restore_one_task, sigreturn_restore).
func restoreTaskSteps() []step {
	return []step{
		{"Restoring namespaces", "make its namespaces"},
		{"mnt: Restoring mount namespace", "make its mounts"},
		{"Preparing info about shared resources", "read what is shared"},
		{"File descs:", "read memory"},
		{"Restore on-core sigactions", "fork its children"},
		{"Restoring resources", "open files"},
		{"Opening 0x", "map files"},
		{"Restore via sigreturn", "prepare the last step"},
		{"Switched to the restorer", "put memory in its place"},
	}
}

// Spans makes stretches of the lines of a log, in the order of their start. CRIU's
// own follow upon each other from the opening of the log to its last line, and
// so do the parts of one task. Of what is not there (the lines are those of log
// level 3 of CRIU 4) nothing is made.
func Spans(lines []Line) []Span {
	s := spanner{tasks: map[int]*current{}}
	if lastTimed(lines) == nil {
		return nil // of a log below level 3
	}
	s.criu.open = &Span{Name: "probe the kernel"}
	var last time.Duration
	for _, l := range lines {
		if !l.Timed {
			continue
		}
		last = max(last, l.At)
		if l.Pid != 0 {
			s.restoredTask(l)
		} else {
			s.criuItself(l)
		}
	}
	s.criu.close(&s.spans, last)
	s.task.close(&s.spans, last)
	for _, t := range s.tasks {
		t.close(&s.spans, last)
	}
	sortSpans(s.spans)
	return s.spans
}

// current is a track of spans that follow upon each other.
type current struct {
	whole *Span // the task's, if it is one's
	open  *Span
}

func (c *current) close(to *[]Span, at time.Duration) {
	c.end(to, at)
	if c.whole != nil {
		c.whole.End = max(at, c.whole.Start)
		*to = append(*to, *c.whole)
		c.whole = nil
	}
}

// end ends the span under way; one that has no name was nothing.
func (c *current) end(to *[]Span, at time.Duration) {
	if c.open != nil && c.open.Name != "" {
		c.open.End = max(at, c.open.Start)
		*to = append(*to, *c.open)
	}
	c.open = nil
}

// next begins a span, unless it is what is under way.
func (c *current) next(to *[]Span, s Span) {
	if c.open != nil && c.open.Name == s.Name {
		return
	}
	c.end(to, s.Start)
	c.open = &s
}

type spanner struct {
	spans   []Span
	criu    current
	task    current          // the one being dumped
	tasks   map[int]*current // those being restored
	restore bool
}

func (s *spanner) criuItself(l Line) {
	if pid, comm, ok := dumpedTask(l.Text); ok {
		s.task.close(&s.spans, l.At)
		s.criu.next(&s.spans, Span{Name: "dump the tasks", Start: l.At})
		s.task.whole = &Span{Name: "dump", Pid: pid, Task: comm, Start: l.At}
		return
	}
	if strings.HasPrefix(l.Text, "Reading image tree") {
		s.restore = true
	}
	if s.restore {
		if name, ok := find(restoreSteps(), l.Text); ok && s.forward(name) {
			s.criu.next(&s.spans, Span{Name: name, Start: l.At})
		}
		if pid, ok := forked(l.Text); ok {
			s.makeTask(pid, l.At, "begin")
		}
		return
	}
	if s.task.whole != nil && s.dumpedPart(l) {
		return
	}
	if name, ok := find(dumpSteps(), l.Text); ok && s.forward(name) {
		s.task.close(&s.spans, l.At)
		s.criu.next(&s.spans, Span{Name: name, Start: l.At})
	}
}

// forward says whether a step comes after the one under way: what a line says
// may be said again later, where it means nothing.
func (s *spanner) forward(name string) bool {
	all := dumpSteps()
	if s.restore {
		all = restoreSteps()
	}
	at := -1
	for i, step := range all {
		if s.criu.open != nil && step.name == s.criu.open.Name {
			at = i
		}
		if step.name == name && i > at {
			return true
		}
	}
	return false
}

// dumpedPart takes a line about the task that is being dumped.
func (s *spanner) dumpedPart(l Line) bool {
	pid := s.task.whole.Pid
	if open := s.task.open; open != nil {
		switch {
		case open.Name == "write memory" && strings.HasPrefix(l.Text, "Pagemap generated: "):
			open.Pages += number(l.Text, "Pagemap generated: ")
			return true
		// The parasite is dismissed, and its memory unmapped, when the state is
		// written; CRIU says nothing of it.
		case (open.Name == "write registers and state" || open.Name == "write threads") && strings.HasPrefix(l.Text, "--------"):
			if l.At > open.Start+2*time.Microsecond { // not the one below its title
				s.task.next(&s.spans, Span{Name: "take the parasite out", Pid: pid, Part: true, Start: l.At})
			}
			return true
		}
	}
	name, ok := find(dumpTaskSteps(), l.Text)
	if ok {
		s.task.next(&s.spans, Span{Name: name, Pid: pid, Part: true, Start: l.At})
	}
	return ok
}

func (s *spanner) makeTask(pid int, at time.Duration, first string) {
	if s.tasks[pid] != nil {
		return
	}
	s.tasks[pid] = &current{
		whole: &Span{Name: "restore", Pid: pid, Start: at},
		open:  &Span{Name: first, Pid: pid, Part: true, Start: at},
	}
}

// restoredTask takes a line that a task being restored has written.
func (s *spanner) restoredTask(l Line) {
	if pid, ok := forked(l.Text); ok {
		s.makeTask(pid, l.At, "read memory")
	}
	t := s.tasks[l.Pid]
	if t == nil || t.whole == nil {
		return // a thread, or it is restored
	}
	switch {
	case strings.HasSuffix(l.Text, ": Restored"):
		t.close(&s.spans, l.At)
		return
	case strings.HasPrefix(l.Text, "nr_restored_pages:"):
		t.open.Pages += number(l.Text, "nr_restored_pages: ")
	case strings.HasPrefix(l.Text, "Restoring ") && strings.HasSuffix(l.Text, " pgid"):
		t.next(&s.spans, Span{Name: "wait for the others", Pid: l.Pid, Part: true, Start: l.At})
	}
	if name, ok := find(restoreTaskSteps(), l.Text); ok {
		t.next(&s.spans, Span{Name: name, Pid: l.Pid, Part: true, Start: l.At})
	}
}

func find(steps []step, text string) (name string, ok bool) {
	for _, s := range steps {
		if strings.HasPrefix(text, s.prefix) {
			return s.name, true
		}
	}
	return "", false
}

// dumpedTask reads "Dumping task (pid: 4711 comm: python3)".
func dumpedTask(text string) (pid int, comm string, ok bool) {
	rest, ok := strings.CutPrefix(text, "Dumping task (pid: ")
	if !ok {
		return 0, "", false
	}
	digits, comm, _ := strings.Cut(strings.TrimSuffix(rest, ")"), " comm: ")
	n, err := strconv.ParseUint(digits, 10, 31)
	return int(n), comm, err == nil && n > 0
}

// forked reads "Forking task with 6 pid (flags 0x0)".
func forked(text string) (pid int, ok bool) {
	n := number(text, "Forking task with ")
	return int(n), n > 0 && n < 1<<31
}

// number is the one that follows a prefix; 0 if there is none.
func number(text, prefix string) uint64 {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return 0
	}
	digits, _, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	n, _ := strconv.ParseUint(digits, 10, 48)
	return n
}

// sortSpans puts them in the order of their start, a whole before its parts.
func sortSpans(spans []Span) {
	slices.SortStableFunc(spans, func(a, b Span) int {
		switch {
		case a.Start != b.Start:
			return cmp.Compare(a.Start, b.Start)
		case a.Pid != b.Pid:
			return cmp.Compare(a.Pid, b.Pid)
		case a.Part != b.Part && b.Part:
			return -1
		case a.Part != b.Part:
			return 1
		}
		return cmp.Compare(b.End, a.End)
	})
}
