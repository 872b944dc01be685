package lab

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const someSections = `section 1 kernel 36 user 7
ffffffff81000000 12 2
ffffffffc0000010 4 3
end
section 2 kernel 0 user 1
end
`

func TestReadSections(t *testing.T) {
	whole := []Section{
		{Mark: MarkCheckpoint, Kernel: 36, User: 7, Blocks: []Block{{0xffffffff81000000, 24}, {0xffffffffc0000010, 12}}},
		{Mark: MarkRestore, User: 1},
	}
	for _, test := range []struct {
		name, text string
		want       []Section
		err        string
	}{
		{"none", "", nil, ""},
		{"two", someSections, whole, ""},
		{"the last one is being written", someSections + "section 1 kernel 12 user 0\nffffffff81000000 12 1\n", whole, ""},
		{"in the middle of a line", someSections + "section 1 ker", whole, ""},
		{"no head", "end\n", nil, "line 1"},
		{"no number", "section 1 kernel x user 7\n", nil, "line 1"},
		{"no block", "section 1 kernel 1 user 7\nffffffff81000000 12\n", nil, "line 2"},
		{"no address", "section 1 kernel 1 user 7\nhere 12 1\n", nil, "line 2"},
		{"lost blocks", "section 1 kernel 36 user 7\nffffffff81000000 12 2\nend\n", nil, "line 3: the blocks have 24 instructions, the section 36"},
	} {
		got, err := ReadSections(strings.NewReader(test.text))
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.name, err, test.err)
		}
	}
}

func FuzzReadSections(f *testing.F) {
	f.Add([]byte(someSections))
	f.Add([]byte("section 0 kernel 0 user 0\nend\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := ReadSections(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range all {
			if err := s.check(); err != nil {
				t.Error(err)
			}
		}
	})
}
