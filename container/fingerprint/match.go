package fingerprint

import (
	"strconv"
	"strings"
	"time"
)

// Declaration is a line of the table of differences that must be.
type Declaration struct {
	Key    string `json:"key"` // a pattern: * stands for any text
	Kind   Kind   `json:"kind"`
	Before string `json:"before,omitempty"` // of kind Becomes: patterns for both values,
	After  string `json:"after,omitempty"`  // "nothing" for none
	When   When   `json:"when,omitempty"`   // "": always
	Reason string `json:"reason"`
}

// Kind is how a fact may differ.
type Kind string

const (
	// NotRecorded: it is not even written down.
	NotRecorded Kind = "not recorded"
	// Anything: any value, or none.
	Anything Kind = "anything"
	// Closes: it tells of a TCP connection, or of a socket that had one.
	Closes Kind = "closes"
	// Moves: wherever the old address stood, the new one stands.
	Moves Kind = "moves"
	// Becomes: one certain value, and then another.
	Becomes Kind = "becomes"
	// Runs: a time in nanoseconds, which has gone on by no more than has elapsed.
	Runs Kind = "runs"
	// RunsOut: what is left of a time, which has become less by no more than has
	// elapsed.
	RunsOut Kind = "runs out"
	// Counts: a count of what happens as time goes by.
	Counts Kind = "counts"
	// Returns: a thread that was inside a system call which can be made again,
	// or had just come to its end.
	Returns Kind = "returns"
)

// When is a circumstance under which a declaration holds.
type When string

const (
	Always       When = ""
	OtherName    When = "another name"
	OtherAddress When = "another address"
	OtherBoot    When = "another host or boot"
	TCPClosed    When = "connections closed"
)

func (w When) holds(c Circumstances) bool {
	switch w {
	case OtherName:
		return c.OtherName
	case OtherAddress:
		return c.OtherAddress
	case OtherBoot:
		return c.OtherBoot
	case TCPClosed:
		return c.TCPClosed
	}
	return true
}

// allows tells whether a difference is one of this line.
func (d *Declaration) allows(diff Difference, c Circumstances) bool {
	if !d.When.holds(c) || !match(d.Key, diff.Key) {
		return false
	}
	switch d.Kind {
	case Anything:
		return true
	case Closes:
		return diff.Note == "connection" || diff.Note == "closed"
	case Becomes:
		return match(d.Before, shown(diff.Before)) && match(d.After, shown(diff.After))
	case Returns:
		return diff.Before != nil && diff.After != nil && *diff.Before == "inside" && *diff.After == "outside" && diff.Note != "" && !restartBlock(diff.Note)
	case Runs, RunsOut, Counts:
		before, after, ok := numbers(diff)
		if d.Kind == RunsOut {
			before, after = after, before
		}
		return ok && after >= before && (d.Kind == Counts || time.Duration(after-before) <= c.Elapsed)
	}
	return false
}

func numbers(d Difference) (before, after int64, ok bool) {
	if d.Before == nil || d.After == nil {
		return 0, 0, false
	}
	before, err := strconv.ParseInt(*d.Before, 10, 64)
	after, err2 := strconv.ParseInt(*d.After, 10, 64)
	return before, after, err == nil && err2 == nil
}

// match tells whether a pattern, in which * stands for any text, fits all of s.
func match(pattern, s string) bool {
	first, rest, more := strings.Cut(pattern, "*")
	if !strings.HasPrefix(s, first) {
		return false
	}
	s = s[len(first):]
	if !more {
		return s == ""
	}
	for {
		middle, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(s, middle)
		}
		at := strings.Index(s, middle)
		if at < 0 {
			return false
		}
		s, rest = s[at+len(middle):], after
	}
}
