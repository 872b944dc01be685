package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Status is what is wanted of /proc/PID/status (proc_pid_status(5)): what stat
// does not show. Sizes are in bytes here; the kernel shows KiB.
type Status struct {
	Name   string
	State  string // one letter
	TGID   int
	PID    int
	PPID   int
	Tracer int
	// Real, effective, saved, file system.
	UIDs [4]uint32
	GIDs [4]uint32
	// The same process in each pid namespace from the reader's to its own.
	NSPID  []int
	NSPGID []int
	NSSID  []int

	VmSize  uint64
	RSS     uint64
	Threads int
	CPUs    string // list format: "0-3,8"
}

// ParseStatus reads /proc/PID/status. Lines that nobody has asked for are skipped.
func ParseStatus(r io.Reader) (Status, error) {
	s := Status{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // 65,536 supplementary groups are one line
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			return Status{}, fmt.Errorf("status: no colon in %q", lines.Text())
		}
		if key == "Name" {
			// Escaped by the kernel (newline, backslash); one tab goes before it.
			s.Name = unescape(strings.TrimPrefix(value, "\t"))
			continue
		}
		if err := s.set(key, strings.TrimSpace(value)); err != nil {
			return Status{}, fmt.Errorf("status: %s: %w", key, err)
		}
	}
	if err := lines.Err(); err != nil {
		return Status{}, fmt.Errorf("status: %w", err)
	}
	if s.PID == 0 && s.Name == "" {
		return Status{}, errors.New("status: neither Name nor Pid in it")
	}
	return s, nil
}

func (s *Status) set(key, value string) (err error) {
	switch key {
	case "State":
		s.State, _, _ = strings.Cut(value, " ")
	case "Tgid":
		err = number(value, 10, &s.TGID)
	case "Pid":
		err = number(value, 10, &s.PID)
	case "PPid":
		err = number(value, 10, &s.PPID)
	case "TracerPid":
		err = number(value, 10, &s.Tracer)
	case "Uid":
		err = four(value, &s.UIDs)
	case "Gid":
		err = four(value, &s.GIDs)
	case "NSpid":
		s.NSPID, err = list[int](value)
	case "NSpgid":
		s.NSPGID, err = list[int](value)
	case "NSsid":
		s.NSSID, err = list[int](value)
	case "VmSize":
		err = kib(value, &s.VmSize)
	case "VmRSS":
		err = kib(value, &s.RSS)
	case "Threads":
		err = number(value, 10, &s.Threads)
	case "Cpus_allowed_list":
		s.CPUs = value
	}
	return err
}

type integer interface {
	~int | ~uint32 | ~uint64
}

func number[T integer](s string, base int, to *T) error {
	v, err := strconv.ParseUint(s, base, 64)
	if err != nil || uint64(T(v)) != v || T(v) < 0 {
		return fmt.Errorf("%q is not a number that fits", s)
	}
	*to = T(v)
	return nil
}

func kib(s string, to *uint64) error {
	s, ok := strings.CutSuffix(s, " kB")
	if err := number(s, 10, to); err != nil {
		return err
	}
	if !ok || *to > 1<<54-1 {
		return fmt.Errorf("%q is not a size in kB", s)
	}
	*to <<= 10
	return nil
}

func list[T integer](s string) ([]T, error) {
	var all []T
	for _, one := range strings.Fields(s) {
		var v T
		if err := number(one, 10, &v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func four(s string, to *[4]uint32) error {
	all, err := list[uint32](s)
	if err != nil {
		return err
	}
	if len(all) != len(to) {
		return fmt.Errorf("%d numbers in %q, not %d", len(all), s, len(to))
	}
	copy(to[:], all)
	return nil
}

// unescape undoes the kernel's string_escape_str(ESCAPE_SPACE | ESCAPE_SPECIAL)
// as far as it can occur: \n and \\ (fs/proc/array.c, proc_task_name).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\n`, "\n", `\\`, `\`).Replace(s)
}
