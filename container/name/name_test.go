package name

import (
	"strings"
	"testing"
)

func TestValidName(t *testing.T) {
	for _, s := range []string{"a", "0", "web", "Web_1.x-2", strings.Repeat("x", 63), "a..b"} {
		if err := ValidName(s); err != nil {
			t.Errorf("ValidName(%q): %v", s, err)
		}
	}
	for s, want := range map[string]string{
		"":                      "is empty",
		".":                     "must start with",
		"..":                    "must start with",
		"-x":                    "must start with",
		"_x":                    "must start with",
		"a/b":                   `not "/"`,
		"web@1":                 `not "@"`,
		"a b":                   `not " "`,
		"a\x00":                 `not "\x00"`,
		"a\n":                   `not "\n"`,
		"ä":                     `not "ä"`,
		"a\xff":                 `not "`,
		strings.Repeat("x", 64): "is 64 bytes long, may be 63",
	} {
		err := ValidName(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ValidName(%q) = %v, want ...%s...", s, err, want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("ValidName(%q): error is not one line: %q", s, err)
		}
	}
}
