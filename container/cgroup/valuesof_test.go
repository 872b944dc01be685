package cgroup

import (
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestValuesOf(t *testing.T) {
	limit, none, quota, period := int64(64<<20), int64(-1), int64(150_000), uint64(100_000)
	memory := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	for name, c := range map[string]struct {
		r    *specs.LinuxResources
		mode string
		want map[string]string
	}{
		"v1":             {memory, "v1", map[string]string{"memory.limit_in_bytes": "67108864"}},
		"hybrid":         {memory, "hybrid", map[string]string{"memory.limit_in_bytes": "67108864"}},
		"v2":             {memory, "v2", map[string]string{"memory.max": "67108864"}},
		"none on v1":     {&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &none}}, "v1", map[string]string{"memory.limit_in_bytes": "", "memory.memsw.limit_in_bytes": ""}},
		"none on v2":     {&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &none}}, "v2", map[string]string{"memory.max": "", "memory.swap.max": ""}},
		"processors, v1": {&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}, "v1", map[string]string{"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": ""}},
		"processors, v2": {&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}, "v2", map[string]string{"cpu.max": "150000 100000"}},
		"no tasks limit": {&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &none}}, "v2", map[string]string{"pids.max": ""}},
		"nothing":        {nil, "v2", map[string]string{}},
	} {
		got, err := ValuesOf(c.r, c.mode)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
	if CheckValues(map[string]string{"memory.limit_in_bytes": "2", "memory.memsw.limit_in_bytes": "1"}) == nil {
		t.Error("more memory than memory and swap together")
	}
	if err := CheckValues(map[string]string{"memory.max": "2", "memory.limit_in_bytes": "1"}); err != nil {
		t.Error(err)
	}
}
