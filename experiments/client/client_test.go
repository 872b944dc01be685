package client

import (
	"testing"
	"time"
)

func TestLongestGap(t *testing.T) {
	at := func(ms ...int) (out []time.Time) {
		for _, m := range ms {
			out = append(out, time.Unix(0, 0).Add(time.Duration(m)*time.Millisecond))
		}
		return out
	}
	since := at(100)[0]
	// The gap of 60 ends before the moment, that of 30 begins before it.
	if got := longestGap(at(0, 60, 90, 120, 125), since); got != 30*time.Millisecond {
		t.Errorf("got %v", got)
	}
	if got := longestGap(nil, since); got != 0 {
		t.Errorf("without answers: %v", got)
	}
}
