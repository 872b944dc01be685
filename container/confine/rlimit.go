package confine

import (
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func rlimitNumber(name string) (int, bool) {
	switch name {
	case "RLIMIT_CPU":
		return unix.RLIMIT_CPU, true
	case "RLIMIT_FSIZE":
		return unix.RLIMIT_FSIZE, true
	case "RLIMIT_DATA":
		return unix.RLIMIT_DATA, true
	case "RLIMIT_STACK":
		return unix.RLIMIT_STACK, true
	case "RLIMIT_CORE":
		return unix.RLIMIT_CORE, true
	case "RLIMIT_RSS":
		return unix.RLIMIT_RSS, true
	case "RLIMIT_NPROC":
		return unix.RLIMIT_NPROC, true
	case "RLIMIT_NOFILE":
		return unix.RLIMIT_NOFILE, true
	case "RLIMIT_MEMLOCK":
		return unix.RLIMIT_MEMLOCK, true
	case "RLIMIT_AS":
		return unix.RLIMIT_AS, true
	case "RLIMIT_LOCKS":
		return unix.RLIMIT_LOCKS, true
	case "RLIMIT_SIGPENDING":
		return unix.RLIMIT_SIGPENDING, true
	case "RLIMIT_MSGQUEUE":
		return unix.RLIMIT_MSGQUEUE, true
	case "RLIMIT_NICE":
		return unix.RLIMIT_NICE, true
	case "RLIMIT_RTPRIO":
		return unix.RLIMIT_RTPRIO, true
	case "RLIMIT_RTTIME":
		return unix.RLIMIT_RTTIME, true
	}
	return 0, false
}

// checkRlimits reads the limits of a bundle and says what is wrong with them.
func checkRlimits(limits []specs.POSIXRlimit) error {
	seen := make(map[string]bool, len(limits))
	for _, l := range limits {
		if _, known := rlimitNumber(l.Type); !known {
			return fmt.Errorf("unknown limit %q", l.Type)
		}
		// The specification asks for an error here.
		if seen[l.Type] {
			return fmt.Errorf("%s is given twice", l.Type)
		}
		seen[l.Type] = true
		if l.Soft > l.Hard {
			return fmt.Errorf("%s: soft limit %s is above the hard limit %s", l.Type, limit(l.Soft), limit(l.Hard))
		}
	}
	return nil
}

// SetRlimits sets limits of the calling process. Inside a user namespace
// CAP_SYS_RESOURCE counts for nothing here.
func SetRlimits(limits []specs.POSIXRlimit) error {
	if err := checkRlimits(limits); err != nil {
		return fmt.Errorf("rlimits: %w", err)
	}
	for _, l := range limits {
		number, _ := rlimitNumber(l.Type)
		err := unix.Prlimit(0, number, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil)
		if err != nil {
			return fmt.Errorf("rlimits: set %s to %s:%s: %w", l.Type, limit(l.Soft), limit(l.Hard), explainLimit(number, l, err))
		}
	}
	return nil
}

func explainLimit(number int, want specs.POSIXRlimit, cause error) error {
	var now unix.Rlimit
	if cause != unix.EPERM || unix.Prlimit(0, number, nil, &now) != nil || want.Hard <= now.Max {
		return cause
	}
	if hasCapability(unix.CAP_SYS_RESOURCE) {
		if number == unix.RLIMIT_NOFILE {
			return fmt.Errorf("%w (no more than the sysctl fs.nr_open allows)", cause)
		}
		return cause
	}
	return fmt.Errorf("%w (the hard limit is %s now; raising it needs CAP_SYS_RESOURCE, which this process lacks)", cause, limit(now.Max))
}

// limit writes a limit as ulimit does.
func limit(v uint64) string {
	if v == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(v, 10)
}
