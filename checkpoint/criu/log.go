package criu

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Level is how bad a line of CRIU's log is.
type Level int

// The levels. Raw is a line without one: progress, or the words of a helper
// program such as iptables-restore.
const (
	Raw Level = iota
	Warning
	Fault
)

// Line is one line of CRIU's log.
type Line struct {
	At     time.Duration // since CRIU opened the log
	Timed  bool          // it has a time: not a helper's words, and not below log level 3
	Offset int64         // where in the log it begins, if ParseLog has read it
	Pid    int           // the task being restored that wrote it, in its own pid namespace; 0 is CRIU
	Level  Level
	Source string // file and line in CRIU's source
	Text   string
}

// A line that is longer than this is cut. CRIU's own buffer is 8 KiB
// (criu/log.c: LOG_BUF_LEN); helpers may write longer ones.
const maxLine = 16 << 10

// ParseLog reads a whole log.
func ParseLog(r io.Reader) ([]Line, error) {
	var lines []Line
	var at int64
	b := bufio.NewReaderSize(r, maxLine)
	for {
		raw, err := b.ReadSlice('\n')
		if len(raw) > 0 {
			l := ParseLine(string(raw))
			l.Offset = at
			lines = append(lines, l)
		}
		at += int64(len(raw))
		for errors.Is(err, bufio.ErrBufferFull) { // drop what is too long
			raw, err = b.ReadSlice('\n')
			at += int64(len(raw))
		}
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
	}
}

// ParseLine takes a line apart. Its form is
//
//	(00.012345)    123: Error (criu/files.c:99): text: Errno text
//
// of which everything but the text may be missing: the time below log level
// 3 (criu/log.c: print_ts), the pid on dump, the level and the source for
// progress. The restorer's own lines begin with "pie: 123: ".
func ParseLine(s string) Line {
	s = strings.TrimRight(s, "\r\n")
	var l Line
	l.At, l.Timed, s = cutTime(s)
	l.Pid, s = cutPid(s)
	for _, mark := range []struct {
		word  string
		level Level
	}{{"Error (", Fault}, {"Warn  (", Warning}} {
		rest, ok := strings.CutPrefix(s, mark.word)
		if !ok {
			continue
		}
		source, text, ok := strings.Cut(rest, "): ")
		if ok && !strings.ContainsAny(source, " \t(") {
			l.Level, l.Source, s = mark.level, source, text
		}
	}
	l.Text = strings.TrimSpace(s)
	return l
}

// cutTime takes "(00.012345) " off.
func cutTime(s string) (at time.Duration, ok bool, rest string) {
	if !strings.HasPrefix(s, "(") {
		return 0, false, s
	}
	stamp, rest, ok := strings.Cut(s[1:], ")")
	if !ok {
		return 0, false, s
	}
	sec, frac, ok := strings.Cut(stamp, ".")
	if !ok || len(sec) < 2 || len(frac) == 0 || len(frac) > 6 {
		return 0, false, s
	}
	n, err := strconv.ParseUint(sec, 10, 32)
	if err != nil {
		return 0, false, s
	}
	// From 100 s on the bracket overwrites the last digit: pad to microseconds.
	us, err := strconv.ParseUint((frac + "00000")[:6], 10, 32)
	if err != nil {
		return 0, false, s
	}
	at = time.Duration(n)*time.Second + time.Duration(us)*time.Microsecond
	return at, true, strings.TrimPrefix(rest, " ")
}

// cutPid takes "   123: " or "pie: 123: " off.
func cutPid(s string) (int, string) {
	rest := strings.TrimLeft(strings.TrimPrefix(s, "pie: "), " ")
	number, text, ok := strings.Cut(rest, ": ")
	if !ok || len(number) == 0 || len(number) > 7 {
		return 0, s
	}
	pid, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return 0, s
	}
	return int(pid), text
}

// lineErrno finds the errno that ends the line: pr_perror appends ": " and
// strerror(errno) (criu/include/log.h), the parasite a "(-22)".
func lineErrno(text string) syscall.Errno {
	if i := strings.LastIndex(text, "(-"); i >= 0 && strings.HasSuffix(text, ")") {
		if n, err := strconv.ParseUint(text[i+2:len(text)-1], 10, 12); err == nil && n > 1 && n < 134 {
			return syscall.Errno(n)
		}
	}
	i := strings.LastIndex(text, ": ")
	if i < 0 {
		return 0
	}
	word := text[i+2:]
	for e := syscall.Errno(1); e < 134; e++ {
		// Go's texts are glibc's in lower case.
		if strings.EqualFold(word, e.Error()) {
			return e
		}
	}
	return 0
}
