package diff

import (
	"fmt"
	"strings"
	"testing"

	"crucible/images/inspect/memory"
)

// mapping is "START-END PERM NAME", in pages; a name with a slash is a file's,
// whose offset is where it would begin at 0.
func mapping(text string) (m memory.Mapping) {
	name := ""
	if _, err := fmt.Sscanf(text, "%x-%x %s %s", &m.Start, &m.End, &m.Permissions, &name); err != nil {
		fmt.Sscanf(text, "%x-%x %s", &m.Start, &m.End, &m.Permissions)
	}
	m.Kind = memory.Anonymous
	if strings.HasPrefix(name, "/") {
		m.Kind, m.Offset = memory.File, m.Start
	}
	m.Name = name
	return m
}

func list(text string) (all []memory.Mapping) {
	for _, t := range strings.Split(text, ", ") {
		if t != "" {
			all = append(all, mapping(t))
		}
	}
	return all
}

func TestPairs(t *testing.T) {
	for name, c := range map[string]struct{ a, b, want string }{
		"same":     {"10-20 rw-p, 30-40 r-xp /lib", "10-20 rw-p, 30-40 r-xp /lib", "10-20=10-20[10-20], 30-40=30-40[30-40]"},
		"grown":    {"10-20 rw-p", "10-28 rw-p", "10-20=10-28[10-20]+[20-28]"},
		"shrunk":   {"10-20 rw-p", "10-18 rw-p", "10-20=10-18[10-18]-[18-20]"},
		"split":    {"10-20 rw-p /lib", "10-18 rw-p /lib, 18-20 r--p /lib", "10-20=10-18[10-18], 10-20=18-20[18-20]"},
		"merged":   {"10-18 rw-p /lib, 18-20 rw-p /lib", "10-20 rw-p /lib", "10-20=10-20[10-20]"},
		"added":    {"", "10-20 rw-p", "=10-20+[10-20]"},
		"removed":  {"10-20 rw-p", "", "10-20=-[10-20]"},
		"replaced": {"10-20 rw-p", "10-20 r--p /lib", "10-20=-[10-20], =10-20+[10-20]"},
		"moved":    {"10-20 rw-p", "50-60 rw-p", "10-20=50-60 moved"},
		"other":    {"10-20 rw-p", "50-61 rw-p", "10-20=-[10-20], =50-61+[50-61]"},
		"hole":     {"10-20 rw-p", "10-14 rw-p, 18-20 rw-p", "10-20=10-14[10-14]-[14-18], 10-20=18-20[18-20]"},
	} {
		var got []string
		for _, p := range pairs(list(c.a), list(c.b)) {
			text := ""
			if p.a != nil {
				text += fmt.Sprintf("%x-%x", p.a.Start, p.a.End)
			}
			text += "="
			if p.b != nil {
				text += fmt.Sprintf("%x-%x", p.b.Start, p.b.End)
			}
			for sign, spans := range map[string][]span{"": p.both} {
				for _, s := range spans {
					text += fmt.Sprintf("%s[%x-%x]", sign, s.from, s.to)
				}
			}
			for _, s := range p.onlyA {
				text += fmt.Sprintf("-[%x-%x]", s.from, s.to)
			}
			for _, s := range p.onlyB {
				text += fmt.Sprintf("+[%x-%x]", s.from, s.to)
			}
			if p.moved {
				text += " moved"
			}
			got = append(got, text)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %s, want %s", name, strings.Join(got, ", "), c.want)
		}
	}
}

func TestRecord(t *testing.T) {
	a, err := parseRecord([]byte(`{"name": "x", "ids": [1, 2], "links": [{"name": "lo", "mtu": 1}, {"name": "eth0", "mtu": 2}], "inode": 5, "deep": {"inode": 6, "large": 18446744073709551615}}`), "inode", "*.inode")
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseRecord([]byte(`{"name": "y", "ids": [1], "links": [{"name": "new", "mtu": 3}, {"name": "eth0", "mtu": 2}], "deep": {"inode": 7, "large": 18446744073709551615}}`), "inode", "*.inode")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(fields(a, b))
	want := "[{ids 1 2 1} {links.lo.mtu 1 } {links.lo.name lo } {name x y} {links.new.mtu  3} {links.new.name  new}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
