package archive

import "fmt"

// Error is a file that is no good archive of an image.
type Error struct {
	// Entry is the name of what is wrong in it, or "".
	Entry string
	// Text continues a sentence about the entry, or the archive.
	Text string
	// Advice is what the user can do, in one line.
	Advice string
}

func (e *Error) Error() string {
	if e.Entry == "" {
		return "archive: " + e.Text
	}
	return fmt.Sprintf("archive: entry %q %s", e.Entry, e.Text)
}

// Hint says what to do about it.
func (e *Error) Hint() string {
	if e.Advice == "" {
		return "it was not written like this by `crucible image export`: get it again, from somebody you trust"
	}
	return e.Advice
}

func cutOff() *Error {
	return &Error{Text: "ends in the middle", Advice: "it was not copied whole: copy it again"}
}
