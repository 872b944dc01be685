package secrets

import (
	"regexp"
	"strings"
	"testing"
)

// Each rule finds what it is for, and not what is nearly it.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		text, kind string // "": nothing
	}{
		{"-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA0", "private key"},
		{"-----BEGIN PRIVATE KEY-----\r\nMC4CAQAwBQYDK2Vw", "private key"},
		{"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED", "private key"},
		{"-----BEGIN PUBLIC KEY-----\nMIIEowIBAAKCAQEA0", ""},
		{`"-----BEGIN PRIVATE KEY-----" is missing`, ""}, // a message of a library
		{"AKIA" + strings.Repeat("Z7", 8), "AWS key"},
		{"AKIA is what they begin with", ""},
		{"ghp_" + strings.Repeat("x", 36), "GitHub token"},
		{"ghp_short", ""},
		{"xoxb-123456789-abcdefghijkl", "Slack token"},
		{"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "JSON web token"},
		{"eyJhbGciOiJIUzI1NiJ9", ""},
		{"Authorization: Bearer 0123456789abcdef0123", "bearer token"},
		{"Bearer of bad news", ""},
	} {
		found := ""
		for _, r := range rules() {
			if regexp.MustCompile(r.expr).MatchString(c.text) {
				found = r.kind
			}
		}
		if found != c.kind {
			t.Errorf("%q is a %q, want %q", c.text, found, c.kind)
		}
	}
	name := regexp.MustCompile(secretName)
	for variable, want := range map[string]bool{"DB_PASSWORD": true, "GITHUB_TOKEN": true, "api_key": true, "AWS_SECRET_ACCESS_KEY": true,
		"TOKEN_FILE": false, "PATH": false, "SECRETS_DIR": false, "PASSWORD_MIN_LENGTH": false, "KEYBOARD": false} {
		if name.MatchString(variable) != want {
			t.Errorf("%s: %v", variable, !want)
		}
	}
}

// Each is searched for by fixed text first: without, a GiB takes 10 s.
func TestRulesAreFast(t *testing.T) {
	for _, r := range rules() {
		if prefix, _ := regexp.MustCompile(r.expr).LiteralPrefix(); len(prefix) < 3 {
			t.Errorf("%s begins with %q", r.expr, prefix)
		}
	}
}

func TestRedact(t *testing.T) {
	for secret, want := range map[string]string{
		"hunter2": "h... (7 bytes)", "": "... (0 bytes)", strings.Repeat("a", 100): "aaaaaaaaaa... (100 bytes)",
		"-----BEGIN RSA PRIVATE KEY-----\r\nMIIE": "-----BEGIN RSA PRIVATE KEY-----",
	} {
		if got := redact(secret); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
