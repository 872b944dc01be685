package main

import (
	"io"
	"slices"
	"testing"
)

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"--only", "cycle,memory", "--skip", "memory", "--idle", "5, 6"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !o.wants("cycle") || o.wants("memory") || o.wants("lazy") {
		t.Errorf("only %q, skip %q", o.only, o.skip)
	}
	if !slices.Equal(o.idle, []int{5, 6}) || !slices.Equal(o.clones, []int{1, 10, 100}) {
		t.Errorf("idle %v, clones %v", o.idle, o.clones)
	}
	quick, err := parseOptions([]string{"--quick"}, io.Discard)
	if err != nil || slices.Contains(quick.clones, 100) || !quick.wants("idle") {
		t.Errorf("quick: %+v, %v", quick, err)
	}
}

func TestOptionsRefused(t *testing.T) {
	for _, args := range [][]string{
		{"--only", "cycles"}, {"--idle", "0"}, {"--clones", "x"}, {"--sizes", "1,"}, {"all"}, {"--nothing"},
	} {
		if _, err := parseOptions(args, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
