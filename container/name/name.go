package name

import "fmt"

// Max is the longest name in bytes: a label of a host name (RFC 1035, 2.3.4).
const Max = 63

// Error is a name that cannot be one.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

func invalid(format string, args ...any) *Error { return &Error{fmt.Sprintf(format, args...)} }

// ValidName says what is wrong with s as the name of a container, or nil.
// ASCII only: a name is typed, compared byte by byte, and part of paths.
func ValidName(s string) error {
	if s == "" {
		return invalid("name: is empty")
	}
	for i, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		case r == '_', r == '.', r == '-':
			// Not at the start: "-x" reads as a flag, ".x" is hidden, and ".."
			// is no name at all.
			if i == 0 {
				return invalid("name %q: must start with a letter or a digit", s)
			}
		default:
			return invalid(`name %q: may hold letters, digits, "_", "." and "-", not %q`, s, string(r))
		}
	}
	if len(s) > Max {
		return invalid("name %q: is %d bytes long, may be %d", s[:16]+"...", len(s), Max)
	}
	return nil
}
