package workload

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// programPath is where a container has its program, and by which that knows
// itself as such.
const programPath = "/crucible-case"

// GoAhead tells the program that it is to check itself. It ends then, with 0 if all
// is as it was.
const GoAhead = unix.SIGUSR1

// What a program says on its standard output, in a line of its own.
const (
	saysReady  = "ready"
	saysLacks  = "lacks: "   // and the feature
	saysFailed = "failed: "  // and what it could not set up
	saysDiffer = "differs: " // and what is not as it was
)

// MaybeRun becomes the program of a case if this process was started as one,
// and then never returns. It comes early in main, after container.MaybeMonitor.
func MaybeRun() { maybeRun(Cases) }

func maybeRun(cases func() []Case) {
	if len(os.Args) == 2 && os.Args[0] == programPath {
		os.Exit(runProgram(cases(), os.Args[1]))
	}
}

func runProgram(cases []Case, name string) int {
	runtime.LockOSThread()
	goOn := make(chan os.Signal, 1)
	signal.Notify(goOn, GoAhead)
	c, err := find(cases, name)
	if err != nil {
		fmt.Println(saysFailed + err.Error())
		return 1
	}
	check, err := c.program()
	if err != nil {
		var lack *LackError
		if errors.As(err, &lack) {
			fmt.Println(saysLacks + oneLine(err))
		} else {
			fmt.Println(saysFailed + oneLine(err))
		}
		return 1
	}
	fmt.Println(saysReady)
	<-goOn
	if err := check(); err != nil {
		fmt.Println(saysDiffer + oneLine(err))
		return 1
	}
	return 0
}

func oneLine(err error) string { return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ") }

// LackError is a feature that a case needs and that is not there.
type LackError struct {
	Feature string
	Why     string
}

func (e *LackError) Error() string {
	if e.Why == "" {
		return e.Feature
	}
	return e.Feature + ": " + e.Why
}

// lacks tells a kernel that has no such thing, which says ENOSYS or one of the
// errors given, from one that fails.
func lacks(feature string, err error, no ...unix.Errno) error {
	var errno unix.Errno
	if errors.As(err, &errno) && (errno == unix.ENOSYS || slices.Contains(no, errno)) {
		return &LackError{feature, errno.Error()}
	}
	return fmt.Errorf("%s: %w", feature, err)
}

// plain is the program of a case whose question is asked from outside.
func plain() (func() error, error) { return func() error { return nil }, nil }
