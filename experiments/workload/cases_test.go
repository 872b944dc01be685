package workload

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"crucible/container/host"
	"crucible/container/name"
)

func TestCasesAreTold(t *testing.T) {
	kebab := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := map[string]bool{}
	for _, c := range Cases() {
		if !kebab.MatchString(c.Name) || seen[c.Name] {
			t.Errorf("%q: is not a name of its own in kebab-case", c.Name)
		}
		seen[c.Name] = true
		// What is put before it by Run, and behind it for clones.
		if err := name.ValidName("wl4194304-" + c.Name + "-3"); err != nil {
			t.Error(err)
		}
		if !strings.HasSuffix(c.Question, "?") || strings.Contains(c.Question, "\n") || len(c.Question) > 110 {
			t.Errorf("%s: question %q", c.Name, c.Question)
		}
		if c.program == nil {
			t.Errorf("%s: has no program", c.Name)
		}
		if c.Known != nil && (c.Known.Why == "" || c.Known.Step == "") {
			t.Errorf("%s: is known to fail, and %+v", c.Name, c.Known)
		}
		for _, need := range c.Needs {
			if group, name, ok := strings.Cut(need, "/"); !ok || group == "" || name == "" {
				t.Errorf("%s: needs %q, which is not GROUP/NAME", c.Name, need)
			}
		}
	}
	if len(seen) < 50 {
		t.Errorf("there are %d cases", len(seen))
	}
}

// A need that nobody answers to would never be lacked.
func TestNeeds(t *testing.T) {
	known := map[string]bool{"freezer/v1": true, "freezer/v2": true, "machine/two processors": true, "machine/huge page": true}
	for _, row := range host.Probe(t.Context(), host.Options{}) {
		known[row.Group+"/"+row.Name] = true
	}
	for _, kind := range []string{"unix", "tcp", "tcp6", "udp", "packet", "netlink"} { // see host.Undiagnosed
		known["sockets/"+kind] = true
	}
	for _, c := range controllers() {
		known["controller/"+c] = true
	}
	for _, c := range append(Cases(), Case{Name: "each", Needs: always()}) {
		for _, need := range c.Needs {
			if !known[need] && !strings.HasPrefix(need, "criu/") {
				t.Errorf("%s needs %q, which Probe does not know", c.Name, need)
			}
		}
	}
}

func TestFind(t *testing.T) {
	c, err := Find("pipe")
	if err != nil || c.Name != "pipe" {
		t.Errorf("pipe: %q, %v", c.Name, err)
	}
	for wrong, nearest := range map[string]string{
		"tcp-estblished": "tcp-established",
		"zombi":          "zombie",
		"semaphore":      "eventfd-semaphore", // a part of a name
		"PIPE":           "pipe",
		"":               "udp", // something, at least
	} {
		_, err := Find(wrong)
		var missing *NotFoundError
		if !errors.As(err, &missing) || !slices.Contains(missing.Nearest, nearest) || !strings.Contains(err.Error(), nearest) {
			t.Errorf("%q: %v, want the nearest name %s", wrong, err, nearest)
		}
	}
}

func TestSameLines(t *testing.T) {
	for _, test := range []struct{ before, after, want string }{
		{"a\nb\n", "a\nb\n", ""},
		{"a\nb\n", "a\nc\n", `"c", before "b"`},
		{"a\nb", "a", `"b" is missing`},
		{"a", "a\nb", `"b" is new`},
	} {
		err := sameLines(test.before, test.after)
		if got := errorText(err); got != test.want {
			t.Errorf("%q, %q: %s, want %s", test.before, test.after, got, test.want)
		}
	}
}

func TestSame(t *testing.T) {
	for _, test := range []struct {
		got, want any
		text      string
	}{
		{1, 1, ""}, {1, 2, "it: 1, want 2"}, {"a", "b", "it: a, want b"},
		{[]byte("abcd"), []byte("abcd"), ""}, {[]byte("abxd"), []byte("abcd"), "it: 4 bytes, want 4, alike up to byte 2"}, {[]byte("ab"), []byte("abcd"), "it: 2 bytes, want 4, alike up to byte 2"},
	} {
		if got := errorText(same("it", test.got, test.want)); got != test.text {
			t.Errorf("%v, %v: %s, want %s", test.got, test.want, got, test.text)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
