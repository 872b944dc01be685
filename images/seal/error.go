package seal

// Error is a key that cannot be used, or what a key does not open or vouch for.
type Error struct {
	Text   string
	Advice string // what the user can do, in one line
	// Key: the key is no good, and not what it was to be used for.
	Key bool
}

func (e *Error) Error() string { return e.Text }

// Hint says what to do about it.
func (e *Error) Hint() string { return e.Advice }

func badKey(text, advice string) *Error { return &Error{Text: text, Advice: advice, Key: true} }
