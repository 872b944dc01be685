package proc

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Stat is what is wanted of /proc/PID/stat, in the order of its fields
// (proc_pid_stat(5)). Times are in clock ticks, of which USER_HZ (100 on every
// architecture that matters here) make a second.
type Stat struct {
	PID     int
	Comm    string
	State   string // one letter: R S D Z T t X I
	PPID    int
	Flags   uint64 // PF_* of include/linux/sched.h
	UTicks  uint64
	STicks  uint64
	Threads int
	// After boot, in the time namespace of the reader.
	StartTicks uint64
}

// ParseStat reads /proc/PID/stat.
func ParseStat(r io.Reader) (Stat, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return Stat{}, err
	}
	line := string(data)
	// The name of a command may hold blanks, parentheses and newlines
	// (prctl(2), PR_SET_NAME): it ends at the last parenthesis.
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return Stat{}, errors.New("stat: no command name in parentheses")
	}
	s := Stat{Comm: line[open+1 : end]}
	f := fields{names: "stat", values: strings.Fields(line[end+1:]), first: 3}
	if s.PID, err = strconv.Atoi(strings.TrimSpace(line[:open])); err != nil {
		return Stat{}, fmt.Errorf("stat: pid: %w", err)
	}
	s.State = f.text(3)
	s.PPID, s.Flags = f.int(4), f.uint(9)
	s.UTicks, s.STicks = f.uint(14), f.uint(15)
	s.Threads, s.StartTicks = f.int(20), f.uint(22)
	if f.err != nil {
		return Stat{}, f.err
	}
	return s, nil
}

// fields takes numbered columns from a line and keeps the first error.
type fields struct {
	names  string
	values []string
	first  int // the number of values[0]
	err    error
}

func (f *fields) text(n int) string {
	i := n - f.first
	if i < 0 || i >= len(f.values) {
		f.fail(n, errors.New("missing"))
		return ""
	}
	return f.values[i]
}

func (f *fields) int(n int) int {
	v, err := strconv.ParseInt(f.text(n), 10, 64)
	if err != nil || int64(int(v)) != v {
		f.fail(n, fmt.Errorf("%q is not a number", f.text(n)))
	}
	return int(v)
}

func (f *fields) uint(n int) uint64 {
	v, err := strconv.ParseUint(f.text(n), 10, 64)
	if err != nil {
		f.fail(n, fmt.Errorf("%q is not a number", f.text(n)))
	}
	return v
}

func (f *fields) fail(n int, err error) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: field %d: %w", f.names, n, err)
	}
}
