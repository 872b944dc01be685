package fingerprint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// takeStatus adds /proc/PID/status of the whole process: see takeThread for what
// each thread has for itself.
func (t *taker) takeStatus(p *process) {
	t.statusOf(p.path("status"), p.key()+"/status/", func(key string) bool { return !perThread(key) })
}

// statusOf adds the wanted lines of a status file.
func (t *taker) statusOf(path, prefix string, wanted func(string) bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.cannot(strings.TrimSuffix(prefix, "/"), err)
		return
	}
	rows, err := parseKeyed(bytes.NewReader(data))
	if err != nil {
		t.cannot(strings.TrimSuffix(prefix, "/"), err)
		return
	}
	ended, stopping := false, false
	for _, row := range rows {
		if row.key == "State" {
			ended = stateName(row.value) == "ended"
		}
		stopping = stopping || (row.key == "SigPnd" || row.key == "ShdPnd") && aboutToStop(row.value)
	}
	for _, row := range rows {
		if !wanted(row.key) {
			continue
		}
		value, at := t.statusValue(row), prefix
		switch {
		case row.key == "State" && stopping:
			value = "stopped"
		case row.key == "ShdPnd" || row.key == "SigPnd":
			value = withoutStop(row.value)
		}
		if ended && !outlives(row.key) {
			at += "ended/"
		}
		t.put(at+row.key, value)
	}
}

// outlives: what a process that has ended shows to its parent.
func outlives(key string) bool {
	return key == "State" || key == "PPid" || key == "NSpgid" || key == "NSsid"
}

// stopBit is SIGSTOP, which cannot be blocked: a task for which it waits stops
// before it does anything else. So does a restored one, which is frozen before
// it gets there (criu/cr-restore.c, finalize_restore, sends it).
const stopBit = 1 << (unix.SIGSTOP - 1)

func aboutToStop(mask string) bool {
	set, err := strconv.ParseUint(mask, 16, 64)
	return err == nil && set&stopBit != 0
}

func withoutStop(mask string) string {
	set, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return mask
	}
	return fmt.Sprintf("%016x", set&^stopBit)
}

// statusValue puts a line of status into its canonical form.
func (t *taker) statusValue(row pair) string {
	switch row.key {
	case "State":
		return stateName(row.value)
	case "PPid", "TracerPid", "Tgid", "Ngid", "Pid":
		if n, err := strconv.Atoi(row.value); err == nil {
			return t.number(n)
		}
	case "NSpgid", "NSsid":
		// As seen from each pid namespace: the last is the container's own.
		if all := strings.Fields(row.value); len(all) > 0 {
			return all[len(all)-1]
		}
	}
	return strings.Join(strings.Fields(row.value), " ")
}

// stateName leaves of a task's state what a freeze does not change: v1 shows a
// frozen task as D, v2 as S, and a tracer's stop is not the program's own.
func stateName(state string) string {
	switch first, _, _ := strings.Cut(state, " "); first {
	case "T":
		return "stopped"
	case "Z", "X":
		return "ended"
	}
	return "alive"
}

// perThread: lines of status that each thread has for itself
// (Documentation/filesystems/proc.rst, fs/proc/array.c).
func perThread(key string) bool {
	switch key {
	case "State", "Uid", "Gid", "Groups", "SigPnd", "SigBlk", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
		"NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed", "Cpus_allowed_list", "Mems_allowed", "Mems_allowed_list":
		return true
	}
	return strings.HasPrefix(key, "Speculation") || strings.HasPrefix(key, "x86_Thread")
}

// takeStat adds those fields of /proc/PID/stat that no other file shows.
func (t *taker) takeStat(p *process) {
	key := p.key() + "/stat/"
	data, err := os.ReadFile(p.path("stat"))
	if err != nil {
		t.cannot(p.key()+"/stat", err)
		return
	}
	values, err := parseStat(bytes.NewReader(data))
	if err != nil {
		t.cannot(p.key()+"/stat", err)
		return
	}
	if !p.zombie && len(values) > 49 {
		values[49] = "0" // exit_code: of a task that is stopped, the signal
	}
	t.statFacts(key, values)
}

func (t *taker) statFacts(key string, values []string) {
	for i, value := range values {
		name := statField(i + 3)
		switch {
		case name == "":
			continue
		case name == "tpgid":
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				value = t.number(n)
			}
		case name == "tty_nr":
			if n, err := strconv.ParseUint(value, 10, 32); err == nil && n != 0 {
				value = fmt.Sprintf("%d:%d", n>>8&0xfff, n&0xff|n>>12&0xfff00) // new_encode_dev
			}
		}
		t.put(key+name, value)
	}
}

// statField names a field of proc_pid_stat(5) that is written down: those that
// are in other files too, and those that only count, are not. A field that a
// later kernel adds has its number for a name.
func statField(n int) string {
	switch n {
	case 7:
		return "tty_nr"
	case 8:
		return "tpgid"
	case 26:
		return "startcode"
	case 27:
		return "endcode"
	case 28:
		return "startstack"
	case 38:
		return "exit_signal"
	case 45:
		return "start_data"
	case 46:
		return "end_data"
	case 47:
		return "start_brk"
	case 48:
		return "arg_start"
	case 49:
		return "arg_end"
	case 50:
		return "env_start"
	case 51:
		return "env_end"
	case 52:
		return "exit_code"
	}
	if n > 52 {
		return strconv.Itoa(n)
	}
	return ""
}

// parseStat gives the fields from the third on.
func parseStat(r io.Reader) ([]string, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	// The name of a command may hold anything: it ends at the last parenthesis.
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return nil, errors.New("stat: no command name in parentheses")
	}
	return strings.Fields(string(data[end+1:])), nil
}
