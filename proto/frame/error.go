package frame

// Problem is what is wrong with a file.
type Problem int

const (
	// Damaged: it is what it should be, but bytes are missing or changed.
	Damaged Problem = iota + 1
	// Foreign: it is something else.
	Foreign
	// Newer: it is whole, and this code is too old to read it.
	Newer
)

func (p Problem) String() string {
	switch p {
	case Damaged:
		return "damaged"
	case Foreign:
		return "foreign"
	case Newer:
		return "newer"
	}
	return "unknown"
}

// Error is a file that cannot be read; Text continues a sentence that begins
// with the file's name.
type Error struct {
	Problem Problem
	Text    string
}

func (e *Error) Error() string { return e.Text }
