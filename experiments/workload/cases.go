package workload

import (
	"fmt"
	"slices"
	"strings"

	"crucible/experiments/spell"
)

// Cases are all conformance cases, by subject.
func Cases() []Case {
	return slices.Concat(
		namespaceCases(), cgroupCases(),
		processCases(), identityCases(), attributeCases(), registrationCases(), signalCases(), timerCases(),
		memoryCases(), mappingCases(),
		fileCases(), lockCases(), rootCases(),
		pipeCases(), terminalCases(), eventCases(),
		unixCases(), inetCases(), rawCases(), bridgeCases(),
		wayCases())
}

// NotFoundError says that there is no case of that name.
type NotFoundError struct {
	Name    string
	Nearest []string // at least one
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("find case %q: there is none; the nearest: %s", e.Name, strings.Join(e.Nearest, ", "))
}

// Find finds a case by its name. One that does not exist is a *NotFoundError.
func Find(name string) (Case, error) { return find(Cases(), name) }

func find(cases []Case, name string) (Case, error) {
	for _, c := range cases {
		if c.Name == name {
			return c, nil
		}
	}
	return Case{}, &NotFoundError{Name: name, Nearest: nearest(cases, name)}
}

// nearest are the names that hold the wrong one, or those that fewest changes
// of letters lead to, at most five.
func nearest(cases []Case, name string) []string {
	var parts, close []string
	best := -1
	for _, c := range cases {
		if name != "" && strings.Contains(c.Name, name) {
			parts = append(parts, c.Name)
		}
		switch d := spell.Distance(name, c.Name); {
		case best < 0 || d < best:
			best, close = d, []string{c.Name}
		case d == best:
			close = append(close, c.Name)
		}
	}
	if parts != nil {
		close = parts
	}
	return close[:min(len(close), 5)]
}
