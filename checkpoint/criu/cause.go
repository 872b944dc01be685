package criu

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Cause is the line of a log to which everything else in it goes back.
type Cause struct {
	Text   string // without time, pid and source; "" if there is no error in the log
	Kind   string // a stable name, if it is in the table of known causes
	Object string // what the line is about: "fd 3, path /dev/pts/1"
	Remedy string
	Source string
	Errno  syscall.Errno
	Pid    int    // the task that it is about, by the number CRIU gives it; 0 if unknown
	Task   string // what that task calls itself, if the log says so
}

// FindCause finds the causal error in a log.
//
// CRIU writes the cause first and then, on its way out, what failed because
// of it; but before all that it may have written errors that did no harm. So
// the search goes from the end: past the consequences, to the last error that
// is none, and from there back through the errors just before it, of which
// the first that the table knows, or else simply the first, is the cause.
func FindCause(r io.Reader) (Cause, error) {
	lines, err := ParseLog(r)
	if err != nil {
		return Cause{}, err
	}
	return findCause(lines), nil
}

func causeOf(log string) Cause {
	c, _ := FindCause(strings.NewReader(log))
	if c.Text == "" {
		// Not a log: the dynamic linker's or getopt's own words, perhaps.
		c.Text = lastLine(log)
		c.classify()
	}
	return c
}

// maxGap is how many lines without an error may stand between two errors
// that belong together: at log level 4 CRIU and its parasite tell of each
// message that they exchange.
const maxGap = 8

func findCause(lines []Line) Cause {
	known := causes()
	last := -1
	for i := len(lines) - 1; i >= 0 && last < 0; i-- {
		if lines[i].Level == Fault && !harmless(lines[i].Text) && !consequence(lines[i].Text) {
			last = i
		}
	}
	if last < 0 {
		return onlyConsequences(lines)
	}
	first := last
	for i := last - 1; i >= 0 && first-i <= maxGap; i-- {
		if lines[i].Level == Fault && !harmless(lines[i].Text) && !final(lines[i].Text) {
			first = i
		}
	}
	best := first
	for i := first; i <= last; i++ {
		if lines[i].Level != Fault {
			continue
		}
		if k := lookup(known, lines[i].Text); k != nil && (!k.Alone || i == first) {
			best = i
			break
		}
	}
	c := causeAt(lines[best])
	if c.Pid == 0 {
		c.Pid = blamed(lines[best:])
	}
	c.Task = nameOf(lines, c.Pid)
	if note := explanation(lines, first); note != "" {
		c.Text += " (" + note + ")"
	}
	return c
}

// onlyConsequences does what it can with a log whose every error follows from
// something that was not said: the first of the last ones is nearest to it.
func onlyConsequences(lines []Line) Cause {
	best := -1
	for i := len(lines) - 1; i >= 0; i-- {
		if lines[i].Level != Fault || harmless(lines[i].Text) {
			continue
		}
		if best >= 0 && final(lines[i].Text) {
			break
		}
		best = i
	}
	if best < 0 {
		return Cause{}
	}
	c := causeAt(lines[best])
	c.Pid = blamed(lines[best:])
	c.Task = nameOf(lines, c.Pid)
	return c
}

// nameOf finds what a task calls itself: "Dumping task (pid: 4711 comm: python3)",
// and the same of the first one's processes. A restore's log has no names.
func nameOf(lines []Line, pid int) string {
	if pid == 0 {
		return ""
	}
	for _, l := range lines {
		text := strings.Replace(l.Text, "Dumping processes (", "Dumping task (", 1)
		if of, comm, ok := dumpedTask(text); ok && of == pid {
			return comm
		}
	}
	return ""
}

// About is what a cause is about: the task, and what else the line names.
func About(pid int, task, object string) string {
	about := ""
	if pid > 0 {
		about = "pid " + strconv.Itoa(pid)
		if task != "" {
			about += " (" + task + ")"
		}
	}
	if object != "" {
		about = join(about, object)
	}
	return about
}

func causeAt(l Line) Cause {
	c := Cause{Text: l.Text, Source: l.Source, Errno: lineErrno(l.Text)}
	c.classify()
	return c
}

func (c *Cause) classify() {
	k := lookup(causes(), c.Text)
	if k == nil {
		return
	}
	c.Kind, c.Remedy = k.Kind, k.Remedy
	if k.Stale {
		c.Errno = 0
	}
	if k.Errno != 0 && c.Errno == 0 {
		c.Errno = k.Errno
	}
	fields, _ := match(k.Pattern, c.Text)
	for _, f := range fields {
		if number, ok := strings.CutPrefix(f, "pid "); ok {
			c.Pid, _ = strconv.Atoi(number)
			continue
		}
		if i := strings.LastIndex(f, ": "); i > 0 && lineErrno(f) != 0 {
			f = f[:i]
		}
		c.Object = join(c.Object, f)
	}
}

// explanation is a helper program's last word before the error: iptables or
// ip write to the same log, without a prefix.
func explanation(lines []Line, at int) string {
	if at == 0 || lines[at-1].Level != Raw {
		return ""
	}
	text := lines[at-1].Text
	for _, tool := range []string{"ip:", "RTNETLINK", "iptables", "ip6tables", "nft", "tar:", "gzip:", "Error:"} {
		if strings.HasPrefix(text, tool) {
			return text
		}
	}
	return ""
}

// blamed finds the task among what failed because of the cause: "Dump files
// (pid: 123) failed with -1", "Unseizable non-zombie 123 found".
func blamed(lines []Line) int {
	for _, l := range lines {
		if l.Level != Fault {
			continue
		}
		number, ok := "", false
		for _, x := range [][2]string{{"(pid: ", ")"}, {"Unseizable non-zombie ", " "}} {
			if _, rest, found := strings.Cut(l.Text, x[0]); found {
				number, _, ok = strings.Cut(rest, x[1])
			}
		}
		if !ok {
			continue
		}
		if pid, err := strconv.Atoi(number); err == nil && pid > 0 {
			return pid
		}
	}
	if len(lines) > 0 {
		return lines[0].Pid
	}
	return 0
}

func lookup(known []known, text string) *known {
	for i := range known {
		if _, ok := match(known[i].Pattern, text); ok {
			return &known[i]
		}
	}
	return nil
}

// match looks for a pattern anywhere in a text. A pattern is literal but for
// {names}, each of which stands for what is between its neighbours; the last
// one, at the pattern's end, for the rest of the line. It returns the named
// parts as "name value".
func match(pattern, text string) (fields []string, ok bool) {
	head, rest, more := strings.Cut(pattern, "{")
	at := strings.Index(text, head)
	if at < 0 {
		return nil, false
	}
	text = text[at+len(head):]
	for more {
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, false
		}
		head, rest, more = strings.Cut(after, "{")
		value := text
		if head != "" {
			end := strings.Index(text, head)
			if end < 0 {
				return nil, false
			}
			value, text = text[:end], text[end+len(head):]
		} else if more {
			return nil, false // two names side by side
		}
		if name != "_" {
			fields = append(fields, name+" "+strings.TrimSpace(value))
		}
	}
	return fields, true
}

// The log that is read to explain an error: more than this of it is only the
// last so much.
const maxLog = 8 << 20

// forgetLog removes an older request's log: where CRIU fails before it opens
// its own, the old one would be taken for it.
func (c *Common) forgetLog() {
	_ = unix.Unlinkat(int(c.workDir().Fd()), c.logFile(), 0)
}

// readCause reads the log of a failed request.
func (c *Common) readCause(e *Error) Cause {
	dir := c.workDir()
	fd, err := unix.Openat(int(dir.Fd()), c.logFile(), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Cause{}
	}
	f := os.NewFile(uintptr(fd), c.logFile())
	defer f.Close()
	e.LogPath = dir.Name() + "/" + c.logFile()
	if info, err := f.Stat(); err == nil && info.Size() > maxLog {
		_, _ = f.Seek(-maxLog, io.SeekEnd)
	}
	found, err := FindCause(f)
	if err != nil {
		return Cause{Text: fmt.Sprintf("read %s: %v", e.LogPath, err)}
	}
	return found
}

func (e *Error) fill(c Cause) {
	e.Cause, e.Kind, e.Remedy, e.Pid, e.Task = c.Text, c.Kind, c.Remedy, c.Pid, c.Task
	e.Object, e.Source, e.Errno = c.Object, c.Source, c.Errno
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
