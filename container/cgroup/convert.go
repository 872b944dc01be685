package cgroup

import (
	"math"
	"strconv"
)

// defaultPeriod is the kernel's, in microseconds.
const defaultPeriod = 100000

// weight converts v1's cpu.shares (2 to 262144, by default 1024) to v2's
// cpu.weight (1 to 10000, by default 100). The curve goes through all three
// points; the straight line that older runtimes use gives 1024 shares a weight
// of 39, so that a container with default shares got less than its neighbours
// without a container. See github.com/opencontainers/cgroups, utils.go,
// ConvertCPUSharesToCgroupV2Value, and kubernetes/kubernetes pull 131216.
func weight(shares uint64) int64 {
	if shares <= 2 {
		return 1
	}
	if shares >= 262144 {
		return 10000
	}
	l := math.Log2(float64(shares))
	return int64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// shares is the way back: the most that give no more than the weight, so that
// the default becomes the default.
func shares(w uint64) uint64 {
	low, high := uint64(2), uint64(262144)
	for low < high {
		mid := (low + high + 1) / 2
		if weight(mid) > int64(w) {
			high = mid - 1
		} else {
			low = mid
		}
	}
	return low
}

// ioWeight converts the bundle's blockIO.weight (10 to 1000) to v2's io.weight
// (1 to 10000), as the runtimes do.
func ioWeight(w uint16) int64 { return 1 + (int64(w)-10)*9999/990 }

func decimal(v int64) string { return strconv.FormatInt(v, 10) }

// orMax writes what v2 files (and pids.max) take for no limit.
func orMax(v int64) string {
	if v < 0 {
		return "max"
	}
	return decimal(v)
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func get64(p *int64) int64 {
	if p == nil {
		return 0
	}
	return *p
}

func getU64(p *uint64) uint64 {
	if p == nil {
		return 0
	}
	return *p
}
