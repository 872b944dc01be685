package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Unlimited is RLIM_INFINITY.
const Unlimited uint64 = math.MaxUint64

// Limit is one resource limit, in the unit of setrlimit(2).
type Limit struct {
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Limits are all of a process, by the names of setrlimit(2): "RLIMIT_NOFILE".
type Limits map[string]Limit

// rlimit gives the kernel's words for a limit (fs/proc/base.c, lnames) the
// name that programs use.
func rlimit(words string) (string, bool) {
	switch words {
	case "Max cpu time":
		return "RLIMIT_CPU", true
	case "Max file size":
		return "RLIMIT_FSIZE", true
	case "Max data size":
		return "RLIMIT_DATA", true
	case "Max stack size":
		return "RLIMIT_STACK", true
	case "Max core file size":
		return "RLIMIT_CORE", true
	case "Max resident set":
		return "RLIMIT_RSS", true
	case "Max processes":
		return "RLIMIT_NPROC", true
	case "Max open files":
		return "RLIMIT_NOFILE", true
	case "Max locked memory":
		return "RLIMIT_MEMLOCK", true
	case "Max address space":
		return "RLIMIT_AS", true
	case "Max file locks":
		return "RLIMIT_LOCKS", true
	case "Max pending signals":
		return "RLIMIT_SIGPENDING", true
	case "Max msgqueue size":
		return "RLIMIT_MSGQUEUE", true
	case "Max nice priority":
		return "RLIMIT_NICE", true
	case "Max realtime priority":
		return "RLIMIT_RTPRIO", true
	case "Max realtime timeout":
		return "RLIMIT_RTTIME", true
	}
	return "", false
}

// ParseLimits reads /proc/PID/limits.
func ParseLimits(r io.Reader) (Limits, error) {
	all := Limits{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		// "Max open files   1024   4096   files": the name ends before the
		// first column that is a value; the unit may be missing.
		at := 0
		for at < len(words) && !isLimit(words[at]) {
			at++
		}
		if at == 0 || words[0] != "Max" {
			continue // the heading
		}
		if at+1 >= len(words) {
			return nil, fmt.Errorf("limits: no values in %q", lines.Text())
		}
		name, known := rlimit(strings.Join(words[:at], " "))
		if !known {
			continue
		}
		soft, err := parseLimit(words[at])
		if err != nil {
			return nil, fmt.Errorf("limits: %s: %w", name, err)
		}
		hard, err := parseLimit(words[at+1])
		if err != nil {
			return nil, fmt.Errorf("limits: %s: %w", name, err)
		}
		all[name] = Limit{Soft: soft, Hard: hard}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("limits: none in it")
	}
	return all, nil
}

func isLimit(s string) bool {
	return s == "unlimited" || s[0] >= '0' && s[0] <= '9'
}

func parseLimit(s string) (uint64, error) {
	if s == "unlimited" {
		return Unlimited, nil
	}
	return strconv.ParseUint(s, 10, 64)
}
