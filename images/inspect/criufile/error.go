package criufile

import "fmt"

// Problem is what is wrong with a file. It is an error itself, so that
// errors.Is(err, criufile.Raw) asks for it.
type Problem string

const (
	// Raw: the file has no entries.
	Raw Problem = "raw"
	// Foreign: it is no file of CRIU's, or of one that is newer.
	Foreign Problem = "foreign"
	// Damaged: it does not hold what it says.
	Damaged Problem = "damaged"
	// BadJSON: what is to be encoded is not what Decode writes.
	BadJSON Problem = "bad JSON"
)

func (p Problem) Error() string { return "file is " + string(p) }

// Error says which file, and what is wrong with it.
type Error struct {
	Problem Problem
	// Path of the file, or "" for JSON.
	Path string
	// Entry is the number of the entry, from 1; 0 if it is not about one.
	Entry int
	Text  string
}

func (e *Error) Error() string {
	text := e.Text
	if e.Entry > 0 {
		text = fmt.Sprintf("entry %d: %s", e.Entry, text)
	}
	if e.Path != "" {
		text = e.Path + ": " + text
	}
	return text
}

// Is tells errors.Is that the error is of its problem.
func (e *Error) Is(target error) bool { return target == e.Problem }

// Hint says what to do about it.
func (e *Error) Hint() string {
	switch e.Problem {
	case Raw:
		return "it is not in CRIU's format: read it with the tool that it belongs to"
	case Foreign:
		return "only CRIU's own files can be decoded, those in the criu/ directory of an image; a newer CRIU than 4.3 may have written it"
	case Damaged:
		return "`crucible image verify` tells whether it is what the checkpoint wrote"
	}
	return "it must be what `crucible image decode` writes, or crit, with the same names and types"
}

func problem(p Problem, format string, args ...any) *Error {
	return &Error{Problem: p, Text: fmt.Sprintf(format, args...)}
}
