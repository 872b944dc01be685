package podman

// Error is an archive that cannot be made an image, or the other way.
type Error struct {
	Text   string
	Advice string // what the user can do, in one line
}

func (e *Error) Error() string { return "checkpoint archive: " + e.Text }

// Hint says what to do about it.
func (e *Error) Hint() string {
	if e.Advice == "" {
		return "was it written by `podman container checkpoint --export`, and copied whole?"
	}
	return e.Advice
}
