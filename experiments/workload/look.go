package workload

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processes are the numbers in /proc.
func processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, err
}

// status are lines of /proc/PID/status, in the order in which they are there.
func status(pid int, keys ...string) (string, error) {
	return lines(fmt.Sprintf("/proc/%d/status", pid), keys...)
}

// threadStatus is status for the calling thread, which should be locked.
func threadStatus(keys ...string) (string, error) {
	return lines("/proc/thread-self/status", keys...)
}

func lines(file string, keys ...string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	out := ""
	for _, line := range strings.Split(string(text), "\n") {
		if key, _, _ := strings.Cut(line, ":"); slices.Contains(keys, key) {
			out += line + "\n"
		}
	}
	if strings.Count(out, "\n") != len(keys) {
		return out, fmt.Errorf("%s: want %v, and there is %q", file, keys, out)
	}
	return out, nil
}

// statFields are the fields of /proc/PID/stat from the third on, the state.
func statFields(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	return fields, nil
}

func isErrno(err error, want unix.Errno) bool {
	var errno unix.Errno
	return errors.As(err, &errno) && errno == want
}
