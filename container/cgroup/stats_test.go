package cgroup

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestStatsV2(t *testing.T) {
	dir := fake(t, map[string]string{
		"cpu.stat":            "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_periods 9\nnr_throttled 4\nthrottled_usec 5\n",
		"memory.current":      "4096\n",
		"memory.peak":         "8192\n",
		"memory.max":          "max\n",
		"memory.stat":         "anon 1\nfile 2\nkernel_stack 3\n",
		"memory.swap.current": "7\n",
		"memory.events":       "low 0\noom 2\noom_kill 1\n",
		"pids.current":        "5\n",
		"pids.max":            "10\n",
		"io.stat":             "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n(unknown) rbytes=9\n259:0\n",
	})
	g := &Group{leaves: []leaf{{Hierarchy{Version: 2}, dir}}}
	got, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		CPU:    &CPUStats{Usage: 3000, User: 2000, System: 1000, Throttled: 4, ThrottledTime: 5000},
		Memory: &MemoryStats{Current: 4096, Peak: 8192, RSS: 1, Cache: 2, Swap: 7, OOMKills: 1},
		Pids:   &PidsStats{Current: 5, Limit: 10},
		IO:     []IOStats{{Device: "8:0", ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestStatsV1IO(t *testing.T) {
	dir := fake(t, map[string]string{
		"blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 0\n8:0 Total 12288\nTotal 12288\n",
		"blkio.throttle.io_serviced_recursive":      "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
	})
	g := &Group{leaves: []leaf{{Hierarchy{Version: 1, Controllers: []string{"blkio"}}, dir}}}
	got, err := g.Stats()
	want := Stats{IO: []IOStats{{Device: "8:0", ReadBytes: 4096, WriteBytes: 8192, Reads: 1, Writes: 2}}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestStatsDamaged(t *testing.T) {
	for _, files := range []map[string]string{
		{"cpu.stat": "usage_usec\n"},
		{"cpu.stat": "", "pids.current": "x\n"},
		{"cpu.stat": "", "memory.current": "1\n", "memory.stat": "anon 1\n", "memory.events": "oom_kill 0\n"}, // no memory.max
	} {
		g := &Group{leaves: []leaf{{Hierarchy{Version: 2}, fake(t, files)}}}
		if s, err := g.Stats(); err == nil {
			t.Errorf("%v: %+v, no error", files, s)
		}
	}
}

// v2Group is a group of v2 on fake files.
func v2Group(t *testing.T, controllers string, files map[string]string) *Group {
	h := Hierarchy{Version: 2, Mount: t.TempDir(), Controllers: append(strings.Fields(controllers), "freezer")}
	files["cgroup.controllers"] = controllers + "\n"
	return &Group{name: "x", layout: Layout{Hierarchies: []Hierarchy{h}}, leaves: []leaf{{h, fake(t, files)}}}
}

func TestValuesV2(t *testing.T) {
	g := v2Group(t, "cpu memory pids io hugetlb", map[string]string{
		"memory.max": "1048576\n", "memory.high": "max\n", "memory.low": "0\n", "cpu.max": "max 100000\n", "cpu.weight": "59\n",
		"io.max": "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=2 wbps=max riops=max wiops=max\n", "io.weight": "default 100\n",
		"hugetlb.2MB.max": "0\n", "hugetlb.1GB.max": "9223372036854771712\n", "pids.max": "max\n",
		"sub/cgroup.subtree_control": "pids memory\n", "sub/x/pids.max": "3\n",
	})
	got, err := g.Values()
	want := map[string]string{
		"memory.max": "1048576", "cpu.weight": "59", "hugetlb.2MB.max": "0",
		"io.max": "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=2 wbps=max riops=max wiops=max",
		"sub/":   "", "sub/cgroup.subtree_control": "pids memory", "sub/x/": "", "sub/x/pids.max": "3",
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

// A limit for each device is a write for each device.
func TestNative(t *testing.T) {
	g := v2Group(t, "io", map[string]string{})
	list, foreign := g.native(map[string]string{"io.max": "8:0 rbps=1\n8:16 rbps=2", "cpu.shares": "5"})
	if d := cmp.Diff("io.max=8:0 rbps=1\nio.max=8:16 rbps=2\n", lines(list)); d != "" || len(foreign) != 1 {
		t.Error(d, foreign)
	}
}

// The limits of one version in the words of the other.
func TestConvertValues(t *testing.T) {
	for _, c := range []struct {
		from   map[string]string
		to     int
		want   string
		failed string
	}{
		{map[string]string{"memory.limit_in_bytes": "1000", "memory.memsw.limit_in_bytes": "3000", "memory.soft_limit_in_bytes": "5"}, 2, "memory.max=1000\nmemory.swap.max=2000\nmemory.low=5\n", ""},
		{map[string]string{"memory.max": "1000", "memory.swap.max": "2000", "memory.low": "5"}, 1, "memory.limit_in_bytes=1000\nmemory.memsw.limit_in_bytes=3000\nmemory.soft_limit_in_bytes=5\n", ""},
		{map[string]string{"cpu.shares": "512", "cpu.cfs_quota_us": "5000"}, 2, "cpu.weight=59\ncpu.max=5000 100000\n", ""},
		{map[string]string{"cpu.weight": "100", "cpu.max": "max 5000"}, 1, "cpu.shares=1024\ncpu.cfs_period_us=5000\n", ""},
		{map[string]string{"cpu.max": "1000 5000"}, 1, "cpu.cfs_period_us=5000\ncpu.cfs_quota_us=1000\n", ""},
		{map[string]string{"hugetlb.2MB.max": "4096", "hugetlb.2MB.rsvd.max": "4096"}, 1, "hugetlb.2MB.limit_in_bytes=4096\nhugetlb.2MB.rsvd.limit_in_bytes=4096 ?\n", ""},
		{map[string]string{"memory.high": "5"}, 1, "", "memory.high"},
		{map[string]string{"memory.swappiness": "5"}, 2, "", "memory.swappiness"},
		{map[string]string{"memory.swap.max": "5"}, 1, "", "memory.swap.max"},
		{map[string]string{"cpu.max": "5"}, 1, "", "cpu.max"},
		{map[string]string{"cpu.shares": "-5"}, 1, "", "cpu.shares"},
	} {
		var list []setting
		r, err := resourcesFrom(c.from)
		if err == nil {
			list, err = settings(r, version(c.to))
		}
		if (err == nil) != (c.failed == "") || err != nil && !strings.HasPrefix(err.Error(), c.failed) {
			t.Errorf("%v: error %v", c.from, err)
		}
		if d := cmp.Diff(c.want, lines(list)); d != "" {
			t.Errorf("%v: %s", c.from, d)
		}
	}
}

func TestComplete(t *testing.T) {
	g := v2Group(t, "cpu memory", map[string]string{"cpu.max": "20000 50000\n", "memory.max": "1000\n"})
	period, quota, swap := uint64(100), int64(7), int64(1500)
	for _, c := range []struct {
		r    specs.LinuxResources
		want string
	}{
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Period: &period}}, "cpu.max=20000 100\n"},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota}}, "cpu.max=7 50000\n"},
		{specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: &swap}}, "memory.max=1000\nmemory.swap.max=500\n"},
	} {
		full, err := g.complete(&c.r)
		if err != nil {
			t.Error(err)
			continue
		}
		list, err := settings(full, version(2))
		if d := cmp.Diff(c.want, lines(list)); d != "" || err != nil {
			t.Error(d, err)
		}
	}
}

func FuzzStatParsers(f *testing.F) {
	for _, seed := range []string{"usage_usec 3\nx -1\n", "8:0 rbytes=1 wbytes=2\n", "8:0 Read 4096\nTotal 1\n", "max 100000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if all, err := parseKeyed(strings.NewReader(text)); err == nil && len(all) > strings.Count(text, " ") {
			t.Errorf("%d keys in %q", len(all), text)
		}
		var devices []string
		device := func(name string) *IOStats {
			devices = append(devices, name)
			return &IOStats{}
		}
		_ = parseIOStat(strings.NewReader(text), device)
		_ = parseBlkioBytes(strings.NewReader(text), device)
		_ = parseBlkioCounts(strings.NewReader(text), device)
		if slices.ContainsFunc(devices, func(d string) bool { return !isDevice(d) }) {
			t.Errorf("devices %q in %q", devices, text)
		}
		var c specs.LinuxCPU
		if err := cpuMax(text, &c); err == nil && c.Period == nil {
			t.Errorf("no period in %q, and no error", text)
		}
		_, _ = resourcesFrom(map[string]string{"cpu.max": text, "memory.max": text, "memory.swap.max": text, "hugetlb." + text: text})
	})
}
