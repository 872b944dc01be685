package imagepb

import (
	"strings"
	"unicode/utf8"
)

// Text makes a string of the kernel's (a path, a comm, an argument) fit for a
// proto3 string, which must be UTF-8: every byte that is not becomes \xNN.
// Text that is UTF-8 already stays as it is. The way back does not exist.
func Text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b.WriteString(`\x`)
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&15])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}
