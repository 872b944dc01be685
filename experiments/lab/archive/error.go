package archive

import (
	"fmt"
	"strings"
)

// NoApt says that this machine has no apt that knows Debian's archive.
type NoApt struct{ Why string }

func (e *NoApt) Error() string {
	return "kernels and CRIU by version come from Debian's archive through apt: " + e.Why
}

// Hint says how to do without.
func (e *NoApt) Hint() string { return "give --kernel a bzImage, and --criu a program" }

// Unknown says that the archive does not have a version.
type Unknown struct {
	What    string // "kernel" or "CRIU"
	Version string // that was asked for
	Nearest string // that there is; "" if there is none at all
}

func (e *Unknown) Error() string {
	if e.Nearest == "" {
		return fmt.Sprintf("%s %s: not in the archive", e.What, e.Version)
	}
	return fmt.Sprintf("%s %s: not in the archive; the nearest is %s", e.What, e.Version, e.Nearest)
}

// Hint says where the versions are.
func (e *Unknown) Hint() string { return "`crucible kernel list` shows what there is" }

// Unreachable says that something could not be fetched. What is in the cache
// can be used all the same.
type Unreachable struct {
	What string
	Err  error
}

func (e *Unreachable) Error() string { return fmt.Sprintf("fetch %s: %v", e.What, e.Err) }
func (e *Unreachable) Unwrap() error { return e.Err }

// Hint says what needs no network.
func (e *Unreachable) Hint() string {
	return "is there a network? kernels in the cache, by their whole version, need none"
}

// unreachable is the error for something that apt did not get; a full disk is
// no fault of the network's.
func unreachable(what string, err error) error {
	if strings.Contains(err.Error(), "No space left on device") {
		return fmt.Errorf("fetch %s: %w", what, err)
	}
	return &Unreachable{What: what, Err: err}
}
