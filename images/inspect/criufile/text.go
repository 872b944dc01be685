package criufile

import (
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string. What is no UTF-8 has been sorted out.
func appendString[T string | []byte](to []byte, s T) []byte {
	to = append(to, '"')
	for n := 0; n < len(s); n++ {
		switch c := s[n]; {
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		case c == '\n':
			to = append(to, '\\', 'n')
		case c < ' ' || c == 0x7f:
			to = append(to, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}

// appendQuotedPrintable appends a JSON string of bytes that are mostly text, the
// names of unix sockets, as crit writes them: quoted-printable (RFC 2045), but
// on one line.
func appendQuotedPrintable(to, b []byte) []byte {
	const hexDigits = "0123456789ABCDEF"
	to = append(to, '"')
	for _, c := range b {
		switch {
		case c < ' ' || c >= utf8.RuneSelf-1 || c == '=':
			to = append(to, '=', hexDigits[c>>4], hexDigits[c&15])
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}

// unquotePrintable undoes it, and reads the line breaks that crit puts in.
func unquotePrintable(s string) ([]byte, bool) {
	var b []byte
	for n := 0; n < len(s); n++ {
		if s[n] != '=' {
			b = append(b, s[n])
			continue
		}
		if n+1 < len(s) && s[n+1] == '\n' {
			n++
			continue
		}
		if n+2 >= len(s) {
			return nil, false
		}
		high, low := hexValue(s[n+1]), hexValue(s[n+2])
		if high < 0 || low < 0 {
			return nil, false
		}
		b = append(b, byte(high<<4|low))
		n += 2
	}
	return b, true
}

func hexValue(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
