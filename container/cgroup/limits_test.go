package cgroup_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/testenv"
)

func to[T any](v T) *T { return &v }

func has(l cgroup.Layout, controller string) bool {
	return slices.ContainsFunc(l.Hierarchies, func(h cgroup.Hierarchy) bool { return slices.Contains(h.Controllers, controller) })
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(data))
}

func TestLimits(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: to(int64(64 << 20)), Reservation: to(int64(32 << 20))},
		CPU:    &specs.LinuxCPU{Shares: to(uint64(512)), Quota: to(int64(50000)), Period: to(uint64(100000)), Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: to(int64(100))},
	}
	g := create(t, l, r)
	for controller, files := range map[string]map[string]string{
		"memory": {"memory.limit_in_bytes": "67108864", "memory.soft_limit_in_bytes": "33554432", "memory.max": "67108864", "memory.low": "33554432"},
		"cpu":    {"cpu.shares": "512", "cpu.cfs_quota_us": "50000", "cpu.weight": "59", "cpu.max": "50000 100000"},
		"cpuset": {"cpuset.cpus": "0"},
		"pids":   {"pids.max": "100"},
	} {
		dir := cmp1(g.Paths()[controller], g.Paths()[""])
		seen := 0
		for file, want := range files {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
				seen++
				if got := read(t, filepath.Join(dir, file)); got != want {
					t.Errorf("%s holds %s, not %s", file, got, want)
				}
			}
		}
		if seen == 0 {
			t.Errorf("no file of %s in %q", controller, dir)
		}
	}
	start(t, g, "sleep")
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory == nil || s.Memory.Limit != 64<<20 || s.Pids == nil || s.Pids.Limit != 100 {
		t.Errorf("limits in the statistics: %+v, %+v", s.Memory, s.Pids)
	}
}

func cmp1(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// A limit that needs a hierarchy which the group is not in: the processes go
// there, too. On a hybrid layout huge pages are v2's.
func TestUpdate(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	g := create(t, l, nil)
	j := start(t, g, "sleep")
	before := len(g.Paths())
	if err := g.Update(&specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Cpus: "0"},
		Memory: &specs.LinuxMemory{Limit: to(int64(256 << 20)), Swap: to(int64(256 << 20))},
	}); err != nil {
		t.Fatal(err)
	}
	if l.Mode() != "v2" && len(g.Paths()) != before+1 {
		t.Errorf("it is in %v", g.Paths())
	}
	inside(t, g, j.Process.Pid)
	// Up and down, with swap: each way has its own order of writing.
	for _, mib := range []int64{512, 128, 384} {
		if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: to(mib << 20), Swap: to(mib << 20)}}); err != nil {
			t.Errorf("to %d MiB: %v", mib, err)
		}
		if s, err := g.Stats(); err != nil || s.Memory.Limit != uint64(mib)<<20 {
			t.Errorf("to %d MiB: %+v, %v", mib, s.Memory, err)
		}
	}
	err = g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: to(int64(4096)), CheckBeforeUpdate: to(true)}})
	if err == nil || !strings.Contains(err.Error(), "linux.resources.memory.limit: 4096 is less than the") {
		t.Errorf("a limit below what is in use: %v", err)
	}
	if sizes, err := os.ReadDir("/sys/kernel/mm/hugepages"); err != nil || len(sizes) == 0 || !has(l, "hugetlb") {
		return
	}
	if err := g.Update(&specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}); err != nil {
		t.Fatal(err)
	}
	inside(t, g, j.Process.Pid)
	opened, err := l.Open(g.Name())
	if err != nil || !maps.Equal(opened.Paths(), g.Paths()) {
		t.Errorf("opened it is in %v, not %v: %v", opened.Paths(), g.Paths(), err)
	}
	values, err := g.Values()
	if err != nil || values["hugetlb.2MB.max"]+values["hugetlb.2MB.limit_in_bytes"] != "4194304" {
		t.Errorf("values %v, %v", values, err)
	}
	// A process started now is in both versions.
	inside(t, g, start(t, g, "sleep").Process.Pid)
	inside(t, g, startOn(t, g, "sleep", false).Process.Pid)
}

func TestStats(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		g := create(t, l, nil)
		start(t, g, "spin")
		var s cgroup.Stats
		for deadline := time.Now().Add(patience); s.CPU == nil || s.CPU.Usage < 20e6; time.Sleep(5 * time.Millisecond) {
			var err error
			if s, err = g.Stats(); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(deadline) {
				t.Fatalf("used %+v in %v", s.CPU, patience)
			}
		}
		if s.CPU.User == 0 || s.CPU.User > s.CPU.Usage+20e6 {
			t.Errorf("cpu %+v", s.CPU)
		}
		if has(l, "memory") && (s.Memory == nil || s.Memory.Current < 1<<16 || s.Memory.Peak < s.Memory.Current/2 || s.Memory.RSS == 0 || s.Memory.Limit != 0) {
			t.Errorf("memory %+v", s.Memory)
		}
		if has(l, "pids") && (s.Pids == nil || s.Pids.Current < 2 || s.Pids.Limit != 0) {
			t.Errorf("pids %+v", s.Pids)
		}
	})
}

// Restored into another group, the values are the same; what that one had
// besides is gone.
func TestValues(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	g := create(t, l, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: to(int64(64 << 20))},
		CPU:    &specs.LinuxCPU{Shares: to(uint64(512)), Quota: to(int64(50000)), Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: to(int64(100))},
	})
	nested := filepath.Join(cmp1(g.Paths()["pids"], g.Paths()[""]), "a/b")
	if l.Mode() != "v2" {
		if err := os.MkdirAll(nested, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(nested, "pids.max"), []byte("7"), 0); err != nil {
			t.Fatal(err)
		}
	}
	values, err := g.Values()
	if err != nil {
		t.Fatal(err)
	}
	if l.Mode() != "v2" {
		want := map[string]string{
			"a/": "", "a/b/": "", "a/b/pids.max": "7", "pids.max": "100", "memory.limit_in_bytes": "67108864",
			"cpu.shares": "512", "cpu.cfs_quota_us": "50000", "cpuset.cpus": "0",
		}
		if d := cmp.Diff(want, values); d != "" {
			t.Error(d)
		}
	}
	other := create(t, l, &specs.LinuxResources{
		CPU: &specs.LinuxCPU{Shares: to(uint64(2000)), Burst: to(uint64(1000)), Quota: to(int64(20000))}, Pids: &specs.LinuxPids{Limit: to(int64(3))},
	})
	if err := other.RestoreValues(values); err != nil {
		t.Fatal(err)
	}
	got, err := other.Values()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(values, got); d != "" {
		t.Errorf("after the restore: %s", d)
	}
	for _, bad := range []string{"../pids.max", "/x/pids.max", "no.such", "memory.high", "pids.limit"} {
		err := other.RestoreValues(map[string]string{bad: "1"})
		if l.Mode() != "v2" && (err == nil || !strings.Contains(err.Error(), bad)) {
			t.Errorf("RestoreValues of %s: %v", bad, err)
		}
	}
}

func TestDevices(t *testing.T) {
	each(t, func(t *testing.T, l cgroup.Layout) {
		number := func(n int64) *int64 { return &n }
		// kmsg (1:11) is none of the default devices.
		deny := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
		g := create(t, l, &specs.LinuxResources{Devices: deny})
		j := start(t, g, "open")
		check := func(when string, want map[string]bool) {
			t.Helper()
			for path, open := range want {
				if _, err := fmt.Fprintln(j.in, path); err != nil {
					t.Fatal(err)
				}
				said, err := j.out.ReadString('\n')
				if err != nil || strings.TrimSpace(said) != strconv.FormatBool(open) {
					t.Errorf("%s: open of %s: %q, want %v: %v", when, path, said, open, err)
				}
			}
		}
		check("all denied", map[string]bool{"/dev/null": true, "/dev/urandom": true, "/dev/kmsg": false})
		allow := append(slices.Clone(deny), specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(1), Minor: number(11), Access: "r"})
		if err := g.Update(&specs.LinuxResources{Devices: allow}); err != nil {
			t.Fatal(err)
		}
		check("kmsg allowed", map[string]bool{"/dev/null": true, "/dev/kmsg": true})
		if err := g.Update(&specs.LinuxResources{Devices: deny}); err != nil {
			t.Fatal(err)
		}
		check("denied again", map[string]bool{"/dev/null": true, "/dev/kmsg": false})
	})
}

// The kernel's limits of v2 that need no controller.
func TestUnified(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range l.Hierarchies {
		if h.Version != 2 {
			continue
		}
		v2 := cgroup.Layout{Hierarchies: []cgroup.Hierarchy{h}}
		g := create(t, v2, &specs.LinuxResources{Unified: map[string]string{"cgroup.max.depth": "1"}})
		dir := g.Paths()[""]
		if err := unix.Mkdir(filepath.Join(dir, "a"), 0o755); err != nil {
			t.Error(err)
		}
		if err := unix.Mkdir(filepath.Join(dir, "a/b"), 0o755); err != unix.EAGAIN {
			t.Errorf("a second level: %v", err)
		}
		values, err := g.Values()
		if d := cmp.Diff(map[string]string{"cgroup.max.depth": "1", "a/": ""}, values); err != nil || d != "" {
			t.Errorf("values: %v %s", err, d)
		}
	}
}
