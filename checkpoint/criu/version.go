package criu

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
)

// Version is CRIU's release number.
type Version struct {
	Major, Minor, Sub int
}

// parseVersion reads what `criu --version` prints ("Version: 4.2.1", a
// "GitID:" line may follow) or a bare "4.2.1".
func parseVersion(s string) (Version, error) {
	line := strings.TrimSpace(strings.TrimPrefix(firstLine(s), "Version:"))
	number, _, _ := strings.Cut(line, "-") // 4.2-12-gabcdef, a build from git
	parts := strings.Split(number, ".")
	if len(parts) < 2 || len(parts) > 4 {
		return Version{}, fmt.Errorf("CRIU version %q: not of the form 4.2.1", line)
	}
	var n [3]int
	for i := 0; i < len(parts) && i < len(n); i++ {
		v, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("CRIU version %q: not of the form 4.2.1", line)
		}
		n[i] = int(v)
	}
	return Version{n[0], n[1], n[2]}, nil
}

func versionOf(v *rpc.CriuVersion) Version {
	return Version{int(v.GetMajorNumber()), int(v.GetMinorNumber()), int(v.GetSublevel())}
}

// String is "4.2.1", and "4.3" where there is no third number, as CRIU
// itself writes it.
func (v Version) String() string {
	if v.Sub == 0 {
		return fmt.Sprintf("%d.%d", v.Major, v.Minor)
	}
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Sub)
}

// Less says whether v is an older release than w.
func (v Version) Less(w Version) bool {
	if v.Major != w.Major {
		return v.Major < w.Major
	}
	if v.Minor != w.Minor {
		return v.Minor < w.Minor
	}
	return v.Sub < w.Sub
}

// oldest is the first release that leaves it to its caller to hold packets back
// (--network-lock skip, CRIU's pull request 2197).
func oldest() Version { return Version{Major: 3, Minor: 19} }

// Suffices returns a TooOld for a release that crucible cannot use.
func (v Version) Suffices() error {
	if v.Less(oldest()) {
		return &TooOld{v}
	}
	return nil
}

// TooOld is a CRIU that crucible cannot use.
type TooOld struct{ Version Version }

func (e *TooOld) Error() string {
	return fmt.Sprintf("CRIU %s is too old: it has no way to leave the network to its caller; %s and newer have", e.Version, oldest())
}

// Hint says what to do about it.
func (e *TooOld) Hint() string {
	return "run scripts/setup, which builds a newer CRIU into a private prefix, or name one with --criu or $" + Env
}
