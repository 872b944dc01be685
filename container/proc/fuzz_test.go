package proc

import (
	"bytes"
	"strings"
	"testing"
)

// Whatever the bytes, a parser returns; what it takes, it gives back in parts
// of sane size.
func FuzzParsers(f *testing.F) {
	for _, seed := range []string{statLine, statusText, "9:name=a:b:/x\n0::/\n", "pos:\t0\nflags:\t02\nmnt_id:\t9\n", "net:[1]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := ParseStat(bytes.NewReader(data)); err == nil && (s.State == "" || !bytes.Contains(data, []byte(s.Comm))) {
			t.Errorf("stat %+v of %q", s, data)
		}
		if s, err := ParseStatus(bytes.NewReader(data)); err == nil && (s.PID < 0 || s.Threads < 0) {
			t.Errorf("status %+v of %q", s, data)
		}
		all, err := ParseCgroups(bytes.NewReader(data))
		for _, c := range all {
			if err == nil && !strings.HasPrefix(c.Path, "/") {
				t.Errorf("cgroup %+v of %q", c, data)
			}
		}
		_, _ = ParseFDInfo(bytes.NewReader(data))
		if n, err := ParseNamespace(string(data)); err == nil && n.Kind == "" {
			t.Errorf("namespace %+v of %q", n, data)
		}
		_, _ = parsePIDs(bytes.NewReader(data))
	})
}
