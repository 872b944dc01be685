package main

import (
	"maps"
	"strings"
	"testing"
)

func TestParseSizes(t *testing.T) {
	got, err := parseSizes(strings.NewReader(`55d0c0000000-7ffd2c1fe000 ---p 00000000 00:00 0    [rollup]
Rss:                1884 kB
Pss:                 812 kB
Slab:             101928 kB
HugePages_Total:       0
VmFlags: rd ex
`))
	want := map[string]int64{"Rss": 1884, "Pss": 812, "Slab": 101928}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := parseSizes(strings.NewReader("Pss: many kB\n")); err == nil {
		t.Error("a size that is no number is taken")
	}
}

func TestParseCPU(t *testing.T) {
	got, err := parseCPU(strings.NewReader("processor\t: 0\nmodel\t\t: 1\nmodel name\t: Some CPU @ 2.00GHz\n\nprocessor\t: 1\n"))
	if err != nil || got != "Some CPU @ 2.00GHz" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestParseLoad(t *testing.T) {
	if got, err := parseLoad("0.52 0.58 0.59 1/283 12345\n"); err != nil || got != 0.52 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseLoad(""); err == nil {
		t.Error("no load average is taken")
	}
}

func TestBusyness(t *testing.T) {
	for _, test := range []struct {
		load             float64
		noisy, worthless bool
	}{{0.4, false, false}, {0.6, true, false}, {2.1, true, true}} {
		noisy, worthless := busyness(test.load, 2)
		if noisy != test.noisy || worthless != test.worthless {
			t.Errorf("load %v: %v, %v", test.load, noisy, worthless)
		}
	}
}

func TestParentOf(t *testing.T) {
	if got, err := parentOf("4242 (a) b (c)) S 17 4242 4242 0"); err != nil || got != 17 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S", "1 (x) S y"} {
		if _, err := parentOf(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzParsers(f *testing.F) {
	f.Add("Pss: 1 kB\nmodel name: x\n")
	f.Add("1 (x) S 2")
	f.Add(markBegin + markEnd)
	f.Fuzz(func(_ *testing.T, s string) {
		_, _ = parseSizes(strings.NewReader(s))
		_, _ = parseCPU(strings.NewReader(s))
		_, _ = parseLoad(s)
		_, _ = parentOf(s)
		_, _ = splice(s, "table")
	})
}
