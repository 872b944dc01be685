package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Status is /proc/PID/status (proc_pid_status(5)): what stat does not show.
// Sizes are in bytes here; the kernel shows KiB.
type Status struct {
	Name   string `json:"name"`
	State  string `json:"state"` // one letter
	Umask  uint32 `json:"umask"`
	TGID   int    `json:"tgid"`
	PID    int    `json:"pid"`
	PPID   int    `json:"ppid"`
	Tracer int    `json:"tracerPid,omitempty"`
	// Real, effective, saved, file system.
	UIDs   [4]uint32 `json:"uids"`
	GIDs   [4]uint32 `json:"gids"`
	Groups []uint32  `json:"groups,omitempty"`
	// The same process in each pid namespace from the reader's to its own.
	NSTGID []int `json:"nsTgid,omitempty"`
	NSPID  []int `json:"nsPid,omitempty"`
	NSPGID []int `json:"nsPgid,omitempty"`
	NSSID  []int `json:"nsSid,omitempty"`

	KernelThread bool   `json:"kernelThread,omitempty"`
	VmSize       uint64 `json:"vmSizeBytes"`
	VmPeak       uint64 `json:"vmPeakBytes"`
	VmLocked     uint64 `json:"vmLockedBytes"`
	RSS          uint64 `json:"rssBytes"`
	RSSAnon      uint64 `json:"rssAnonBytes"`
	RSSFile      uint64 `json:"rssFileBytes"`
	RSSShmem     uint64 `json:"rssShmemBytes"`
	Swap         uint64 `json:"swapBytes"`
	Hugetlb      uint64 `json:"hugetlbBytes"`
	Threads      int    `json:"threads"`

	// Sets, a bit each: signal n is bit n-1, capability n is bit n.
	SigPending  uint64 `json:"sigPending"`
	ShdPending  uint64 `json:"shdPending"`
	SigBlocked  uint64 `json:"sigBlocked"`
	SigIgnored  uint64 `json:"sigIgnored"`
	SigCaught   uint64 `json:"sigCaught"`
	Inheritable uint64 `json:"capInheritable"`
	Permitted   uint64 `json:"capPermitted"`
	Effective   uint64 `json:"capEffective"`
	Bounding    uint64 `json:"capBounding"`
	Ambient     uint64 `json:"capAmbient"`

	NoNewPrivs     bool   `json:"noNewPrivs,omitempty"`
	Seccomp        int    `json:"seccomp"` // 0 off, 1 strict, 2 filter
	SeccompFilters int    `json:"seccompFilters,omitempty"`
	CPUs           string `json:"cpusAllowed"` // list format: "0-3,8"
	Mems           string `json:"memsAllowed"`
	VolSwitches    uint64 `json:"voluntarySwitches"`
	NonvolSwitches uint64 `json:"nonvoluntarySwitches"`
}

// ParseStatus reads /proc/PID/status. Lines that it does not know are skipped:
// kernels add some all the time.
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
	case "Umask":
		err = number(value, 8, &s.Umask)
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
	case "Groups":
		s.Groups, err = list[uint32](value)
	case "NStgid":
		s.NSTGID, err = list[int](value)
	case "NSpid":
		s.NSPID, err = list[int](value)
	case "NSpgid":
		s.NSPGID, err = list[int](value)
	case "NSsid":
		s.NSSID, err = list[int](value)
	case "Kthread":
		s.KernelThread = value == "1"
	case "Threads":
		err = number(value, 10, &s.Threads)
	case "NoNewPrivs":
		s.NoNewPrivs = value == "1"
	case "Seccomp":
		err = number(value, 10, &s.Seccomp)
	case "Seccomp_filters":
		err = number(value, 10, &s.SeccompFilters)
	case "Cpus_allowed_list":
		s.CPUs = value
	case "Mems_allowed_list":
		s.Mems = value
	case "voluntary_ctxt_switches":
		err = number(value, 10, &s.VolSwitches)
	case "nonvoluntary_ctxt_switches":
		err = number(value, 10, &s.NonvolSwitches)
	default:
		if set := s.bits(key); set != nil {
			return number(value, 16, set)
		}
		if size := s.size(key); size != nil {
			return kib(value, size)
		}
	}
	return err
}

func (s *Status) bits(key string) *uint64 {
	switch key {
	case "SigPnd":
		return &s.SigPending
	case "ShdPnd":
		return &s.ShdPending
	case "SigBlk":
		return &s.SigBlocked
	case "SigIgn":
		return &s.SigIgnored
	case "SigCgt":
		return &s.SigCaught
	case "CapInh":
		return &s.Inheritable
	case "CapPrm":
		return &s.Permitted
	case "CapEff":
		return &s.Effective
	case "CapBnd":
		return &s.Bounding
	case "CapAmb":
		return &s.Ambient
	}
	return nil
}

func (s *Status) size(key string) *uint64 {
	switch key {
	case "VmSize":
		return &s.VmSize
	case "VmPeak":
		return &s.VmPeak
	case "VmLck":
		return &s.VmLocked
	case "VmRSS":
		return &s.RSS
	case "RssAnon":
		return &s.RSSAnon
	case "RssFile":
		return &s.RSSFile
	case "RssShmem":
		return &s.RSSShmem
	case "VmSwap":
		return &s.Swap
	case "HugetlbPages":
		return &s.Hugetlb
	}
	return nil
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
