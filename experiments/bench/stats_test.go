package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestQuantile(t *testing.T) {
	// The values of R: quantile(c(1,2,4,8), p).
	for _, test := range []struct{ p, want float64 }{{0, 1}, {0.25, 1.75}, {0.5, 3}, {0.75, 5}, {1, 8}} {
		if got := quantile([]float64{1, 2, 4, 8}, test.p); got != test.want {
			t.Errorf("quantile(%v) = %v, want %v", test.p, got, test.want)
		}
	}
	if got := quantile([]float64{7}, 0.3); got != 7 {
		t.Errorf("of one sample: %v", got)
	}
	if !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("of no sample: a number")
	}
}

func TestMedianLeavesTheOrder(t *testing.T) {
	samples := []float64{9, 1, 5}
	if got := median(samples); got != 5 || samples[0] != 9 {
		t.Errorf("median %v, samples %v", got, samples)
	}
}

func TestSummarise(t *testing.T) {
	got := summarise([]float64{5, 1, 3, 2, 4})
	if want := (summary{5, 3, 2, 4}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRatio(t *testing.T) {
	same := []float64{1, 1, 1, 1}
	if got := ratioOf(same, []float64{2, 2, 2}); got != (ratio{0.5, 0.5, 0.5}) {
		t.Errorf("without spread: %+v", got)
	}
	if got := ratioOf(nil, same); !math.IsNaN(got.Value) {
		t.Errorf("of nothing: %+v", got)
	}
	a, b := []float64{1, 2, 3, 4, 5}, []float64{2, 4, 6, 8, 10}
	if ratioOf(a, b) != ratioOf(a, b) {
		t.Error("the same samples give two intervals")
	}
}

// TestRatioCovers: in about 95 of 100 experiments the interval has the true
// ratio in it. The percentile bootstrap of a median of 20 is known to do so to
// within a few per cent.
func TestRatioCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	draw := func(centre float64) []float64 {
		out := make([]float64, 20)
		for i := range out {
			out[i] = centre * math.Exp(random.NormFloat64()/5)
		}
		return out
	}
	const experiments = 200
	hits := 0
	for range experiments {
		x := ratioOf(draw(1), draw(2))
		if x.Low <= 0.5 && 0.5 <= x.High {
			hits++
		}
	}
	if hits < experiments*90/100 || hits > experiments*995/1000 {
		t.Errorf("the interval has the true ratio in %d of %d experiments", hits, experiments)
	}
}
