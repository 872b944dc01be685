package archive

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSignedBy(t *testing.T) {
	const key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----"
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	stanzas := write("debian.sources", `# a comment
Types: deb
URIs: http://one.invalid/debian/ http://two.invalid/debian
Suites: stable
# Signed-By: /not/this
Components: main
Signed-By: /usr/share/keyrings/a.gpg

Types: deb
URIs: http://three.invalid/debian
Suites: stable
Components: main
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
# in the middle of a key
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://four.invalid/debian
Suites: stable
Components: main
`)
	lines := write("sources.list", `# deb [signed-by=/no] http://five.invalid/debian stable main
deb http://four.invalid/debian stable main
deb [arch=amd64 signed-by=/usr/share/keyrings/b.gpg] http://five.invalid/debian/ stable main
deb [
`)
	for _, test := range []struct{ entry, uri, want string }{
		{stanzas + ":1", "http://one.invalid/debian/", "/usr/share/keyrings/a.gpg"},
		{stanzas + ":1", "http://two.invalid/debian/", "/usr/share/keyrings/a.gpg"},
		{stanzas + ":2", "http://three.invalid/debian/", key},
		{stanzas + ":3", "http://four.invalid/debian/", ""},
		{lines + ":3", "http://five.invalid/debian/", "/usr/share/keyrings/b.gpg"},
		{lines + ":2", "http://four.invalid/debian/", ""},
		{filepath.Join(dir, "gone:1"), "http://one.invalid/debian/", ""},
		{"", "", ""},
	} {
		if got := signedBy(test.entry, test.uri); got != test.want {
			t.Errorf("signedBy(%s, %s) = %q, want %q", test.entry, test.uri, got, test.want)
		}
	}
}

func TestStanzas(t *testing.T) {
	sources := []source{
		{uri: "http://one.invalid/debian/", signedBy: "/a.gpg"},
		{uri: "http://one.invalid/security/", security: true, signedBy: "-----BEGIN\n .\n mQ"},
	}
	want := `Types: deb
URIs: http://one.invalid/debian/
Suites: stable experimental
Components: main
Targets: Packages
Signed-By: /a.gpg

Types: deb
URIs: http://one.invalid/security/
Suites: stable-security
Components: main
Targets: Packages
Signed-By:
 -----BEGIN
 .
 mQ

`
	if got := stanzas(sources, []string{"experimental", "stable", "stable-security"}); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := stanzas(sources, []string{"nowhere"}); got != "" {
		t.Errorf("got %s", got)
	}
}
