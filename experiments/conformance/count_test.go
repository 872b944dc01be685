package conformance

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crucible/experiments/lab"
)

const dump, start = lab.MarkCheckpoint, lab.MarkRestore

func section(m lab.Mark, user uint64, blocks ...lab.Block) lab.Section {
	s := lab.Section{Mark: m, User: user, Blocks: blocks}
	for _, b := range blocks {
		s.Kernel += b.Instructions
	}
	return s
}

// Two rounds of a case with one checkpoint and two restores.
func TestTally(t *testing.T) {
	said := rounds{{{dump, 5}, {start, 6}, {start, 7}}, {{dump, 8}, {start, 9}, {start, 10}}}
	const a, b = 0xffffffff81000000, 0xffffffff81000100
	sections := []lab.Section{
		section(dump, 1, lab.Block{Address: a, Instructions: 100}),
		section(start, 2, lab.Block{Address: a, Instructions: 10}, lab.Block{Address: b, Instructions: 20}),
		section(start, 3, lab.Block{Address: b, Instructions: 30}, lab.Block{Address: b + 4, Instructions: 5}),
		section(dump, 4, lab.Block{Address: a, Instructions: 120}),
		section(start, 5, lab.Block{Address: a, Instructions: 10}),
		section(start, 6, lab.Block{Address: b, Instructions: 55}),
	}
	symbols, err := lab.ReadSymbols(strings.NewReader("ffffffff81000000 T first\nffffffff81000100 T second\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := newTally("digest", said, sections, true)
	if err != nil {
		t.Fatal(err)
	}
	got.name(symbols)
	want := &Counts{
		Guest: "digest",
		Checkpoint: Cost{Virtual: []uint64{5, 8}, Kernel: []uint64{100, 120}, User: []uint64{1, 4},
			Functions: []Function{{"first", 110, 10}}},
		Restore: Cost{Virtual: []uint64{13, 19}, Kernel: []uint64{65, 65}, User: []uint64{5, 11},
			Functions: []Function{{"second", 55, 0}, {"first", 10, 0}}},
	}
	if diff := cmp.Diff(want, got.counts); diff != "" {
		t.Error(diff)
	}

	for name, bad := range map[string][]lab.Section{
		"one is missing": sections[:5], "another order": append(sections[1:2:2], sections...),
	} {
		if _, err := newTally("", said, bad, true); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := newTally("", rounds{{{7, 1}}}, nil, false); err == nil {
		t.Error("an unknown mark: no error")
	}

	got, err = newTally("", said, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	got.name(nil)
	if c := got.counts.Restore; c.Kernel != nil || c.Functions != nil || c.Virtual[1] != 19 || c.String() != "0.00 ms of virtual time" {
		t.Errorf("without a plug-in: %+v, %s", c, &c)
	}
}

func TestMean(t *testing.T) {
	for _, test := range []struct {
		rounds    []uint64
		mean, sem float64
	}{
		{nil, 0, 0}, {[]uint64{4}, 4, 0}, {[]uint64{2, 4, 4, 4, 5, 5, 7, 9}, 5, math.Sqrt(32.0 / 7 / 8)},
	} {
		if m, sem := mean(test.rounds); math.Abs(m-test.mean) > 1e-9 || math.Abs(sem-test.sem) > 1e-9 {
			t.Errorf("%v: %v ± %v, want %v ± %v", test.rounds, m, sem, test.mean, test.sem)
		}
	}
}

func TestCompareCounts(t *testing.T) {
	answer := func(kernel []uint64, functions ...Function) *Answer {
		cost := Cost{Virtual: []uint64{2e6, 2e6}, Kernel: kernel, Functions: functions}
		o := outcome("a", "pass", "")
		o.Counts = &Counts{Checkpoint: cost, Restore: cost}
		return &Answer{Outcomes: []Outcome{o, outcome("b", "pass", "")}}
	}
	before := answer([]uint64{40e6, 42e6}, Function{"walk", 20e6, 1000}, Function{"noisy", 5e6, 200e3}, Function{"gone", 1e6, 0})
	after := answer([]uint64{44e6, 46e6}, Function{"walk", 24e6, 1000}, Function{"noisy", 6e6, 200e3}, Function{"new", 500e3, 0}, Function{"tiny", 3000, 0})
	got := CompareCounts([]string{"b", "a"}, before, after)
	if len(got) != 2 || got[0].Phase != "checkpoint" || got[1].Phase != "restore" {
		t.Fatalf("%+v", got)
	}
	const want = `a: checkpoint: +8.54 % by functions that changed (3); in all +9.8 ± 3.4 %, 41.00 -> 45.00 M kernel instructions
   +4.000 M  walk, 20.000 -> 24.000 M
   -1.000 M  gone, 1.000 -> 0.000 M
   +0.500 M  new, 0.000 -> 0.500 M`
	if diff := cmp.Diff(want, got[0].String()); diff != "" {
		t.Error(diff)
	}
	for _, test := range []struct {
		d    Difference
		want bool
	}{
		{Difference{Changed: 1.1}, true}, {Difference{Changed: 0.9, Percent: 1.4, Error: 0.3}, false},
		{Difference{Percent: 2.1, Error: 0.5}, true}, {Difference{Changed: -5, Percent: -5}, false},
	} {
		if got := test.d.Grew(1); got != test.want {
			t.Errorf("%+v grew by more than 1 %%: %v", test.d, got)
		}
	}

	// Where one of them has no plug-in, time is what both have.
	slower := answer(nil)
	slower.Outcomes[0].Counts.Checkpoint.Virtual = []uint64{3e6, 3e6}
	d := CompareCounts([]string{"a"}, before, slower)[0]
	if d.Unit != VirtualTime || d.Percent != 50 || d.String() != "a: checkpoint: +50.0 ± 0.0 %, 2.00 -> 3.00 ms of virtual time" {
		t.Errorf("%+v: %s", d, d)
	}
}
