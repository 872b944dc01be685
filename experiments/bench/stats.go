package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// quantile of a sorted series, 0 <= p <= 1, by linear interpolation between
// the two nearest samples (R's and numpy's default, type 7).
func quantile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := p * float64(len(sorted)-1)
	low := int(math.Floor(at))
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

func median(samples []float64) float64 { return quantile(slices.Sorted(slices.Values(samples)), 0.5) }

// summary is a series in three numbers.
type summary struct {
	N            int
	Median       float64
	Lower, Upper float64 // quartiles
}

func summarise(samples []float64) summary {
	s := slices.Sorted(slices.Values(samples))
	return summary{len(s), quantile(s, 0.5), quantile(s, 0.25), quantile(s, 0.75)}
}

// ratio is a ratio of two medians and a 95 % interval for it.
type ratio struct{ Value, Low, High float64 }

// resamples of the bootstrap.
const resamples = 2000

// ratioOf compares two series by the percentile bootstrap (Efron, 1979). The
// same samples always give the same interval: the generator's seed is fixed.
func ratioOf(a, b []float64) ratio {
	if len(a) == 0 || len(b) == 0 {
		return ratio{math.NaN(), math.NaN(), math.NaN()}
	}
	random := rand.New(rand.NewPCG(1, 2))
	ratios := make([]float64, resamples)
	drawnA, drawnB := make([]float64, len(a)), make([]float64, len(b))
	for i := range ratios {
		ratios[i] = drawnMedian(random, a, drawnA) / drawnMedian(random, b, drawnB)
	}
	slices.Sort(ratios)
	return ratio{median(a) / median(b), quantile(ratios, 0.025), quantile(ratios, 0.975)}
}

// drawnMedian is the median of as many samples, drawn with replacement.
func drawnMedian(random *rand.Rand, from, into []float64) float64 {
	for i := range into {
		into[i] = from[random.IntN(len(from))]
	}
	slices.Sort(into)
	return quantile(into, 0.5)
}
