package proc

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Stat is /proc/PID/stat, in the order of its fields (proc_pid_stat(5)).
// Times are in clock ticks, of which USER_HZ (100 on every architecture that
// matters here) make a second. Addresses are left out.
type Stat struct {
	PID      int    `json:"pid"`
	Comm     string `json:"comm"`
	State    string `json:"state"` // one letter: R S D Z T t X I
	PPID     int    `json:"ppid"`
	PGID     int    `json:"pgid"`
	SID      int    `json:"sid"`
	TTY      int    `json:"tty,omitempty"` // device number of the controlling terminal
	TPGID    int    `json:"tpgid,omitempty"`
	Flags    uint64 `json:"flags"` // PF_* of include/linux/sched.h
	MinFault uint64 `json:"minorFaults"`
	MajFault uint64 `json:"majorFaults"`
	UTicks   uint64 `json:"userTicks"`
	STicks   uint64 `json:"systemTicks"`
	Priority int    `json:"priority"`
	Nice     int    `json:"nice"`
	Threads  int    `json:"threads"`
	// After boot, in the time namespace of the reader.
	StartTicks uint64 `json:"startTicks"`
	VSize      uint64 `json:"vsizeBytes"`
	RSSPages   int64  `json:"rssPages"`
	ExitSignal int    `json:"exitSignal"`
	CPU        int    `json:"cpu"` // that it ran on last
	RTPriority int    `json:"rtPriority,omitempty"`
	Policy     int    `json:"policy"` // sched_setscheduler(2)
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
	s.PPID, s.PGID, s.SID, s.TTY, s.TPGID = f.int(4), f.int(5), f.int(6), f.int(7), f.int(8)
	s.Flags, s.MinFault, s.MajFault = f.uint(9), f.uint(10), f.uint(12)
	s.UTicks, s.STicks = f.uint(14), f.uint(15)
	s.Priority, s.Nice, s.Threads = f.int(18), f.int(19), f.int(20)
	s.StartTicks, s.VSize, s.RSSPages = f.uint(22), f.uint(23), int64(f.int(24))
	s.ExitSignal, s.CPU, s.RTPriority, s.Policy = f.int(38), f.int(39), f.int(40), f.int(41)
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
