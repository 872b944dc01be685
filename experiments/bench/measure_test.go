package main

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestInterleave(t *testing.T) {
	var order []string
	var n float64
	side := func(name string) arm {
		return arm{name, func(context.Context) ([]value, error) {
			order = append(order, name)
			n++
			return []value{{"took", "ms", n}}, nil
		}}
	}
	breaks := side("b")
	breaks.once = func(context.Context) ([]value, error) {
		order = append(order, "b")
		return nil, errors.New("broken")
	}
	cannot := side("c")
	cannot.once = func(context.Context) ([]value, error) { return nil, errors.ErrUnsupported }
	var r results
	if err := r.interleave(t.Context(), "s", rounds{1, 2}, []arm{side("a"), breaks, cannot, side("d")}); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(order, ""), "abdadad"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	want := []series{
		{Section: "s", System: "b", Failure: "broken"},
		{Section: "s", What: "took", System: "a", Unit: "ms", Samples: []float64{3, 5}},
		{Section: "s", What: "took", System: "d", Unit: "ms", Samples: []float64{4, 6}},
	}
	if !reflect.DeepEqual(r.Series, want) {
		t.Errorf("got  %+v\nwant %+v", r.Series, want)
	}
}

func TestInterleaveStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	var r results
	err := r.interleave(ctx, "s", rounds{0, 5}, []arm{{"a", func(context.Context) ([]value, error) {
		calls++
		cancel()
		return nil, errors.New("killed")
	}}})
	if !errors.Is(err, context.Canceled) || calls != 1 || len(r.Series) != 0 {
		t.Errorf("%v after %d calls, %+v", err, calls, r.Series)
	}
}

func TestLongestPause(t *testing.T) {
	pauses := []pause{{0, 90}, {95, 105}, {150, 170}, {195, 220}, {230, 300}}
	if got := longestPause(pauses, 100, 200); got != 25 {
		t.Errorf("got %d", got)
	}
}

func TestLastLines(t *testing.T) {
	if got := lastLines([]byte("1\n2\n3\n"), []byte("4\n5\n\n")); got != "3; ; 4; 5" {
		t.Errorf("got %q", got)
	}
}
