package cgroup

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// all controllers in one version.
func version(n int) func(string) int {
	return func(c string) int {
		v1only := slices.Contains([]string{"net_cls", "net_prio", "devices", "blkio", "cpuacct"}, c)
		if n == 2 && v1only || n == 1 && c == "io" {
			return 0
		}
		return n
	}
}

func resourcesOf(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	r := &specs.LinuxResources{}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		t.Fatal(err)
	}
	return r
}

func lines(list []setting) string {
	var b strings.Builder
	for _, s := range list {
		for at := &s; at != nil; at = at.or {
			if at != &s {
				b.WriteString("  else ")
			}
			if at.program != nil {
				b.WriteString("PROGRAM")
			}
			b.WriteString(at.file + "=" + at.value)
			if at.optional {
				b.WriteString(" ?")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func TestSettings(t *testing.T) {
	for _, c := range []struct{ name, resources, v1, v2 string }{
		{"nothing", `{}`, "", ""},
		{
			"memory", `{"memory":{"limit":1048576,"swap":3145728,"reservation":4096}}`,
			"memory.limit_in_bytes=1048576\nmemory.memsw.limit_in_bytes=3145728\nmemory.soft_limit_in_bytes=4096\n",
			"memory.max=1048576\nmemory.swap.max=2097152\nmemory.low=4096\n",
		},
		{
			"memory without a limit", `{"memory":{"limit":-1,"useHierarchy":true,"disableOOMKiller":false}}`,
			"memory.limit_in_bytes=-1\nmemory.memsw.limit_in_bytes=-1 ?\nmemory.oom_control=0 ?\nmemory.use_hierarchy=1 ?\n",
			"memory.max=max\nmemory.swap.max=max ?\n",
		},
		{
			"no swap", `{"memory":{"limit":1048576,"swap":1048576}}`,
			"memory.limit_in_bytes=1048576\nmemory.memsw.limit_in_bytes=1048576\n",
			"memory.max=1048576\nmemory.swap.max=0 ?\n",
		},
		{"zeros ask for nothing", `{"memory":{"limit":0,"swap":0,"reservation":0,"kernel":0},"cpu":{"shares":0,"quota":0,"period":0}}`, "", ""},
		{
			"cpu", `{"cpu":{"shares":512,"quota":50000,"period":200000,"burst":1000,"cpus":"0-1","mems":"0","idle":1}}`,
			"cpuset.cpus=0-1\ncpuset.mems=0\ncpu.idle=1\ncpu.shares=512\ncpu.cfs_period_us=200000\ncpu.cfs_quota_us=50000\ncpu.cfs_burst_us=1000\n",
			"cpuset.cpus=0-1\ncpuset.mems=0\ncpu.idle=1\ncpu.weight=59\ncpu.max=50000 200000\ncpu.max.burst=1000\n",
		},
		{"quota alone", `{"cpu":{"quota":-1}}`, "cpu.cfs_quota_us=-1\n", "cpu.max=max 100000\n"},
		{"pids", `{"pids":{"limit":10}}`, "pids.max=10\n", "pids.max=10\n"},
		{"pids without a limit", `{"pids":{"limit":-1}}`, "pids.max=max\n", "pids.max=max\n"},
		{
			"block devices", `{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}],"throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}`,
			"blkio.weight=500\n  else blkio.bfq.weight=500\nblkio.weight_device=8:0 10\n  else blkio.bfq.weight_device=8:0 10\nblkio.throttle.read_bps_device=8:0 1000\nblkio.throttle.write_iops_device=8:16 0\n",
			"io.bfq.weight=500\n  else io.weight=4950\nio.bfq.weight=8:0 10\n  else io.weight=8:0 1\nio.max=8:0 rbps=1000\nio.max=8:16 wiops=max\n",
		},
		{
			"huge pages", `{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}`,
			"hugetlb.2MB.limit_in_bytes=0\nhugetlb.2MB.rsvd.limit_in_bytes=0 ?\n",
			"hugetlb.2MB.max=0\nhugetlb.2MB.rsvd.max=0 ?\n",
		},
		{"rdma", `{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":100}}}`, "rdma.max=mlx5_1 hca_handle=3 hca_object=100\n", "rdma.max=mlx5_1 hca_handle=3 hca_object=100\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := resourcesOf(t, c.resources)
			for i, want := range []string{c.v1, c.v2} {
				list, err := settings(r, version(i+1))
				if err != nil {
					t.Errorf("v%d: %v", i+1, err)
				}
				if d := cmp.Diff(want, lines(list)); d != "" {
					t.Errorf("v%d: %s", i+1, d)
				}
			}
		})
	}
	if list, err := settings(nil, version(1)); err != nil || list != nil {
		t.Errorf("no resources: %v, %v", list, err)
	}
}

func TestSettingsOfOneVersion(t *testing.T) {
	for _, c := range []struct {
		version         int
		resources, want string
	}{
		{1, `{"memory":{"swappiness":0,"kernelTCP":4096,"disableOOMKiller":true}}`, "memory.kmem.tcp.limit_in_bytes=4096\nmemory.swappiness=0\nmemory.oom_control=1\n"},
		{1, `{"cpu":{"realtimeRuntime":950000,"realtimePeriod":1000000}}`, "cpu.rt_period_us=1000000\ncpu.rt_runtime_us=950000\n"},
		{1, `{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}`, "net_cls.classid=1048577\nnet_prio.ifpriomap=eth0 5\n"},
		{2, `{"unified":{"memory.high":"max","cgroup.max.depth":"3"}}`, "cgroup.max.depth=3\nmemory.high=max\n"},
	} {
		list, err := settings(resourcesOf(t, c.resources), version(c.version))
		if err != nil {
			t.Errorf("%s: %v", c.resources, err)
		}
		if d := cmp.Diff(c.want, lines(list)); d != "" {
			t.Errorf("%s: %s", c.resources, d)
		}
	}
}

// What cannot be had is an error that names the field.
func TestSettingsErrors(t *testing.T) {
	for _, c := range []struct {
		version          int
		resources, field string
		unsupported      bool
	}{
		{1, `{"memory":{"kernel":1}}`, "memory.kernel", true},
		{2, `{"memory":{"kernel":1}}`, "memory.kernel", true},
		{2, `{"memory":{"kernelTCP":1}}`, "memory.kernelTCP", true},
		{2, `{"memory":{"swappiness":0}}`, "memory.swappiness", true},
		{2, `{"memory":{"disableOOMKiller":true}}`, "memory.disableOOMKiller", true},
		{2, `{"memory":{"useHierarchy":false}}`, "memory.useHierarchy", true},
		{2, `{"memory":{"swap":1}}`, "memory.swap", false},
		{1, `{"memory":{"limit":2,"swap":1}}`, "memory.swap", false},
		{2, `{"cpu":{"realtimeRuntime":1}}`, "cpu.realtimeRuntime", true},
		{2, `{"cpu":{"realtimePeriod":1}}`, "cpu.realtimePeriod", true},
		{2, `{"blockIO":{"leafWeight":10}}`, "blockIO.leafWeight", true},
		{2, `{"blockIO":{"weightDevice":[{"major":8,"minor":0,"leafWeight":1}]}}`, "blockIO.weightDevice[0].leafWeight", true},
		{2, `{"network":{"classID":1}}`, "network.classID", true},
		{2, `{"network":{"priorities":[{"name":"lo","priority":1}]}}`, "network.priorities[0]", true},
		{1, `{"hugepageLimits":[{"pageSize":"../x","limit":1}]}`, "hugepageLimits[0]", false},
		{1, `{"unified":{"memory.high":"1"}}`, "unified.memory.high", true},
		{1, `{"unified":{"cgroup.max.depth":"1"}}`, "unified.cgroup.max.depth", true},
		{2, `{"unified":{"cgroup.procs":"1"}}`, "unified.cgroup.procs", true},
		{2, `{"unified":{"memory/x.y":"1"}}`, "unified.memory/x.y", false},
		{1, `{"devices":[{"allow":true,"type":"q"}]}`, "devices[0]", false},
		{2, `{"devices":[{"allow":true,"access":"rx"}]}`, "devices[0]", false},
		{2, `{"devices":[{"allow":true,"major":-2}]}`, "devices[0]", false},
	} {
		_, err := settings(resourcesOf(t, c.resources), version(c.version))
		if err == nil || !strings.HasPrefix(err.Error(), "linux.resources."+c.field+": ") {
			t.Errorf("v%d %s: %v, which does not begin with the field", c.version, c.resources, err)
		}
		if errors.Is(err, errUnsupported) != c.unsupported {
			t.Errorf("v%d %s: %v: unsupported is %v", c.version, c.resources, err, !c.unsupported)
		}
	}
}

// The points that Kubernetes and runc agree on, and the way back.
func TestWeight(t *testing.T) {
	for s, want := range map[uint64]int64{0: 1, 2: 1, 3: 2, 512: 59, 1023: 100, 1024: 100, 2048: 174, 262143: 10000, 262144: 10000, 1 << 40: 10000} {
		if got := weight(s); got != want {
			t.Errorf("weight(%d) = %d, want %d", s, got, want)
		}
	}
	for w := uint64(1); w <= 10000; w++ {
		if got := weight(shares(w)); got != int64(w) && shares(w) > 64 {
			// Below, a step of the shares skips weights.
			t.Errorf("weight(shares(%d) = %d) = %d", w, shares(w), got)
		}
	}
	if ioWeight(10) != 1 || ioWeight(1000) != 10000 {
		t.Errorf("ioWeight: 10 is %d, 1000 is %d", ioWeight(10), ioWeight(1000))
	}
}

// fake is a directory with the files of a group.
func fake(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWriteAbsentFiles(t *testing.T) {
	dir := fake(t, map[string]string{"io.weight": ""})
	at := func(string) string { return dir }
	list := []setting{
		{field: "linux.resources.blockIO.weight", file: "io.bfq.weight", value: "5", or: &setting{file: "io.weight", value: "50"}},
		{field: "f", file: "memory.swap.max", value: "max", optional: true},
	}
	if err := write(list, at); err != nil {
		t.Error(err)
	}
	if got, _ := get(filepath.Join(dir, "io.weight")); got != "50" {
		t.Errorf("io.weight holds %q", got)
	}
	err := write([]setting{{field: "linux.resources.memory.swap", file: "memory.swap.max", value: "5"}}, at)
	if err == nil || !errors.Is(err, errUnsupported) || !strings.HasPrefix(err.Error(), "linux.resources.memory.swap: this kernel has no memory.swap.max") {
		t.Errorf("a limit without a file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "memory.swap.max")); err == nil {
		t.Error("write made a file")
	}
}

// Check names the field whose controller this machine does not have.
func TestCheck(t *testing.T) {
	none := func(string) int { return 0 }
	for _, test := range []struct {
		version   func(string) int
		resources string
		want      string
	}{
		{version(2), `{"pids": {"limit": 5}}`, ""},
		{version(2), `{"memory": {"swappiness": 5}}`, "linux.resources.memory.swappiness: not supported by cgroup v2"},
		{none, `{"pids": {"limit": 5}}`, "linux.resources.pids.limit: no pids controller on this machine"},
	} {
		err := check(resourcesOf(t, test.resources), test.version)
		if (err != nil || test.want != "") && (err == nil || err.Error() != test.want) {
			t.Errorf("%s: %v, want %s", test.resources, err, test.want)
		}
	}
}
