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
