package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// setting is one value for one file: what a field of linux.resources comes
// down to. A list of them can be printed and compared; write applies it.
type setting struct {
	field      string // "linux.resources.memory.limit"
	controller string
	file       string
	value      string
	or         *setting // in place of this one where the file does not exist
	optional   bool     // asks for what is so anyway where the file does not exist
	program    []byte   // in place of a file: a device program for v2
}

// errUnsupported is wrapped with the name of a field.
var errUnsupported = errors.New("not supported")

// resources collects the settings of one bundle.
type resources struct {
	version func(controller string) int // 1 or 2; 0: the machine has none
	list    []setting
	err     error
}

// Check refuses, by the field, what a container on this machine would not get:
// what no version of cgroups has, or not the one that the controller is in here.
func Check(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	layout, err := Detect()
	if err != nil {
		return err
	}
	return check(r, layout.version)
}

func check(r *specs.LinuxResources, version func(string) int) error {
	list, err := settings(r, version)
	if err != nil {
		return err
	}
	for _, s := range list {
		if version(s.controller) == 0 {
			return fmt.Errorf("%s: no %s controller on this machine", s.field, s.controller)
		}
	}
	return nil
}

// settings translates the resources of a bundle to files of the version of
// cgroups that each controller is in. Numbers that may be -1 mean "no limit"
// then; 0 means "not asked for", as with every other runtime, except where 0
// is a sensible limit (swappiness, idle, pids, hugepages).
func settings(r *specs.LinuxResources, version func(string) int) ([]setting, error) {
	if r == nil {
		return nil, nil
	}
	s := &resources{version: version}
	if r.Memory != nil {
		s.memory(r.Memory)
	}
	if r.CPU != nil {
		s.cpu(r.CPU)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		s.add("pids.limit", "pids", "pids.max", orMax(*r.Pids.Limit))
	}
	if r.BlockIO != nil {
		s.blockIO(r.BlockIO)
	}
	s.hugepages(r.HugepageLimits)
	if r.Network != nil {
		s.network(r.Network)
	}
	s.rdma(r.Rdma)
	s.devices(r.Devices)
	s.unified(r.Unified)
	return s.list, s.err
}

func (s *resources) add(field, controller, file, value string) *setting {
	s.list = append(s.list, setting{field: "linux.resources." + field, controller: controller, file: file, value: value})
	return &s.list[len(s.list)-1]
}

func (s *resources) fail(field string, format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("linux.resources.%s: "+format, append([]any{field}, args...)...)
	}
}

// notInV2 fails for a field that cgroup v2 has nothing for.
func (s *resources) notInV2(field string) { s.fail(field, "%w by cgroup v2", errUnsupported) }

func (s *resources) memory(m *specs.LinuxMemory) {
	//lint:ignore SA1019 a bundle may have it, and is told
	if m.Kernel != nil && *m.Kernel > 0 {
		// Removed from the kernel: commit 58056f77502f (5.16).
		s.fail("memory.kernel", "%w: kernels from 5.16 on have no such limit", errUnsupported)
	}
	limit, swap := get64(m.Limit), get64(m.Swap)
	if swap > 0 && limit > 0 && swap < limit {
		s.fail("memory.swap", "%d is less than memory.limit %d: it is memory and swap together", swap, limit)
	}
	if limit == -1 && swap == 0 {
		swap = -1 // a limit on both makes no sense without one on the first
	}
	if s.version("memory") == 2 {
		s.memoryV2(m, limit, swap)
		return
	}
	if limit != 0 {
		s.add("memory.limit", "memory", "memory.limit_in_bytes", decimal(limit))
	}
	if swap != 0 {
		// No swap accounting in the kernel: without a limit is how it is.
		s.add("memory.swap", "memory", "memory.memsw.limit_in_bytes", decimal(swap)).optional = swap == -1
	}
	if v := get64(m.Reservation); v != 0 {
		s.add("memory.reservation", "memory", "memory.soft_limit_in_bytes", decimal(v))
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		s.add("memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", decimal(*m.KernelTCP))
	}
	if m.Swappiness != nil {
		s.add("memory.swappiness", "memory", "memory.swappiness", strconv.FormatUint(*m.Swappiness, 10))
	}
	if m.DisableOOMKiller != nil {
		s.add("memory.disableOOMKiller", "memory", "memory.oom_control", flag(*m.DisableOOMKiller)).optional = !*m.DisableOOMKiller
	}
	if m.UseHierarchy != nil {
		// Always on from 5.11 on (commit bef8620cd8e0).
		s.add("memory.useHierarchy", "memory", "memory.use_hierarchy", flag(*m.UseHierarchy)).optional = *m.UseHierarchy
	}
}

func (s *resources) memoryV2(m *specs.LinuxMemory, limit, swap int64) {
	if limit != 0 {
		s.add("memory.limit", "memory", "memory.max", orMax(limit))
	}
	switch {
	case swap == -1:
		s.add("memory.swap", "memory", "memory.swap.max", "max").optional = true
	case swap > 0 && limit > 0:
		// The bundle counts memory and swap together, v2 swap alone.
		s.add("memory.swap", "memory", "memory.swap.max", decimal(swap-limit)).optional = swap == limit
	case swap > 0:
		s.fail("memory.swap", "needs memory.limit, too: cgroup v2 limits swap alone")
	}
	if v := get64(m.Reservation); v != 0 {
		s.add("memory.reservation", "memory", "memory.low", orMax(v))
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		s.notInV2("memory.kernelTCP")
	}
	if m.Swappiness != nil {
		s.notInV2("memory.swappiness")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		s.notInV2("memory.disableOOMKiller")
	}
	if m.UseHierarchy != nil && !*m.UseHierarchy {
		s.notInV2("memory.useHierarchy")
	}
}

func (s *resources) cpu(c *specs.LinuxCPU) {
	if c.Cpus != "" {
		s.add("cpu.cpus", "cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		s.add("cpu.mems", "cpuset", "cpuset.mems", c.Mems)
	}
	if c.Idle != nil {
		s.add("cpu.idle", "cpu", "cpu.idle", decimal(*c.Idle))
	}
	shares, quota, period := getU64(c.Shares), get64(c.Quota), getU64(c.Period)
	if s.version("cpu") == 2 {
		if shares != 0 {
			s.add("cpu.shares", "cpu", "cpu.weight", decimal(weight(shares)))
		}
		if quota != 0 || period != 0 {
			field := "cpu.quota"
			if quota == 0 {
				field, quota = "cpu.period", -1
			}
			if period == 0 {
				period = defaultPeriod
			}
			s.add(field, "cpu", "cpu.max", orMax(quota)+" "+strconv.FormatUint(period, 10))
		}
		if c.Burst != nil {
			s.add("cpu.burst", "cpu", "cpu.max.burst", strconv.FormatUint(*c.Burst, 10)).optional = *c.Burst == 0
		}
		if get64(c.RealtimeRuntime) != 0 {
			s.notInV2("cpu.realtimeRuntime")
		}
		if getU64(c.RealtimePeriod) != 0 {
			s.notInV2("cpu.realtimePeriod")
		}
		return
	}
	if shares != 0 {
		s.add("cpu.shares", "cpu", "cpu.shares", strconv.FormatUint(shares, 10))
	}
	if period != 0 {
		s.add("cpu.period", "cpu", "cpu.cfs_period_us", strconv.FormatUint(period, 10))
	}
	if quota != 0 {
		s.add("cpu.quota", "cpu", "cpu.cfs_quota_us", decimal(quota))
	}
	if c.Burst != nil {
		s.add("cpu.burst", "cpu", "cpu.cfs_burst_us", strconv.FormatUint(*c.Burst, 10)).optional = *c.Burst == 0
	}
	if v := getU64(c.RealtimePeriod); v != 0 {
		s.add("cpu.realtimePeriod", "cpu", "cpu.rt_period_us", strconv.FormatUint(v, 10))
	}
	if v := get64(c.RealtimeRuntime); v != 0 {
		s.add("cpu.realtimeRuntime", "cpu", "cpu.rt_runtime_us", decimal(v))
	}
}

func (s *resources) hugepages(limits []specs.LinuxHugepageLimit) {
	suffix := ".limit_in_bytes"
	if s.version("hugetlb") == 2 {
		suffix = ".max"
	}
	for i, h := range limits {
		field := fmt.Sprintf("hugepageLimits[%d]", i)
		if h.Pagesize == "" || strings.ContainsAny(h.Pagesize, "/.") {
			s.fail(field, "pageSize %q is not such as 2MB", h.Pagesize)
			continue
		}
		value := strconv.FormatUint(h.Limit, 10)
		s.add(field, "hugetlb", "hugetlb."+h.Pagesize+suffix, value)
		// A reservation must be limited as well: a fault beyond the limit is a
		// SIGBUS, a reservation an error. From Linux 5.7 on.
		s.add(field, "hugetlb", "hugetlb."+h.Pagesize+".rsvd"+suffix, value).optional = true
	}
}

func (s *resources) network(n *specs.LinuxNetwork) {
	// v2 has neither: cgroup-v2.rst says to match on the group's path in BPF or
	// netfilter instead.
	if n.ClassID != nil && *n.ClassID != 0 && s.v1Only("network.classID", "net_cls") {
		s.add("network.classID", "net_cls", "net_cls.classid", strconv.FormatUint(uint64(*n.ClassID), 10))
	}
	for i, p := range n.Priorities {
		field := fmt.Sprintf("network.priorities[%d]", i)
		if s.v1Only(field, "net_prio") {
			s.add(field, "net_prio", "net_prio.ifpriomap", p.Name+" "+strconv.FormatUint(uint64(p.Priority), 10))
		}
	}
}

// v1Only is for controllers that exist on v1 alone: where nobody has mounted
// them the word to say is why.
func (s *resources) v1Only(field, controller string) bool {
	if s.version(controller) != 1 {
		s.fail(field, "%w: no v1 hierarchy with the %s controller, and cgroup v2 has none", errUnsupported, controller)
		return false
	}
	return true
}

func (s *resources) rdma(limits map[string]specs.LinuxRdma) {
	for _, device := range slices.Sorted(maps.Keys(limits)) {
		value := device
		if h := limits[device].HcaHandles; h != nil {
			value += " hca_handle=" + strconv.FormatUint(uint64(*h), 10)
		}
		if o := limits[device].HcaObjects; o != nil {
			value += " hca_object=" + strconv.FormatUint(uint64(*o), 10)
		}
		if value != device {
			s.add("rdma."+device, "rdma", "rdma.max", value)
		}
	}
}

// unified is the bundle's way to name v2 files itself.
func (s *resources) unified(files map[string]string) {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		field := "unified." + file
		controller, _, ok := strings.Cut(file, ".")
		switch {
		case !ok || strings.Contains(file, "/"):
			s.fail(field, "is not the name of a cgroup v2 file")
		case controller == "cgroup":
			// cgroup.procs, cgroup.freeze, ... are ours; two are limits.
			if file != "cgroup.max.depth" && file != "cgroup.max.descendants" {
				s.fail(field, "%w: crucible uses it itself", errUnsupported)
			}
			if s.version("freezer") != 2 {
				s.fail(field, "%w: the container's group is in cgroup v1", errUnsupported)
			}
			s.add(field, "freezer", file, files[file])
		case s.version(controller) != 2:
			s.fail(field, "%w: cgroup v2 does not have the %s controller here", errUnsupported, controller)
		default:
			s.add(field, controller, file, files[file])
		}
	}
}

// write applies settings; dir is the group's directory for a controller. Some
// bound each other (memory and memory with swap; quota, period and burst), so
// that the kernel takes them in one order on the way up and in the other on the
// way down: those that are refused are tried again after the rest.
func write(list []setting, dir func(controller string) string) error {
	var refused error
	for len(list) > 0 {
		var again []setting
		refused = nil
		for _, s := range list {
			err := s.write(dir(s.controller))
			if err == nil {
				continue
			}
			if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("%s: %w", s.field, err)
			}
			again = append(again, s)
			refused = errors.Join(refused, fmt.Errorf("%s: %w", s.field, err))
		}
		if len(again) == len(list) {
			return refused
		}
		list = again
	}
	return refused
}

func (s setting) write(dir string) error {
	if s.program != nil {
		return attachDevices(dir, s.program)
	}
	err := put(filepath.Join(dir, s.file), s.value)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s.or != nil {
		return s.or.write(dir)
	}
	if s.optional {
		return nil
	}
	return fmt.Errorf("this kernel has no %s: %w", s.file, errUnsupported)
}
