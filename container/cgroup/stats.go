package cgroup

import (
	"errors"
	"fmt"
)

// Stats is what a container has used. A part is nil where its controller is
// not to be had.
type Stats struct {
	CPU    *CPUStats    `json:"cpu,omitempty"`
	Memory *MemoryStats `json:"memory,omitempty"`
	Pids   *PidsStats   `json:"pids,omitempty"`
	IO     []IOStats    `json:"io,omitempty"` // by device; v1: only where the bundle limits blockIO
}

// CPUStats are times since the group was made, in nanoseconds. (v2 counts in
// microseconds.)
type CPUStats struct {
	Usage  uint64 `json:"usage_ns"`
	User   uint64 `json:"user_ns"`
	System uint64 `json:"system_ns"`
	// How often, and for how long, a quota held tasks back.
	Throttled     uint64 `json:"throttled_periods,omitempty"`
	ThrottledTime uint64 `json:"throttled_ns,omitempty"`
}

// MemoryStats are bytes, with those of nested groups.
type MemoryStats struct {
	Current uint64 `json:"current"`
	Peak    uint64 `json:"peak,omitempty"`  // v2: from Linux 5.19 on
	Limit   uint64 `json:"limit,omitempty"` // 0: none
	RSS     uint64 `json:"rss"`             // anonymous memory
	Cache   uint64 `json:"cache"`           // page cache, tmpfs and shared memory
	Swap    uint64 `json:"swap"`
	// How often a process was killed because the limit was reached.
	OOMKills uint64 `json:"oom_kills"`
}

// PidsStats are tasks: threads, not processes.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit,omitempty"` // 0: none
}

// IOStats are what went to and came from a block device.
type IOStats struct {
	Device     string `json:"device"` // "major:minor"
	ReadBytes  uint64 `json:"read_bytes"`
	WriteBytes uint64 `json:"write_bytes"`
	Reads      uint64 `json:"reads"`
	Writes     uint64 `json:"writes"`
}

// Stats reads what the container has used so far.
func (g *Group) Stats() (Stats, error) {
	var s Stats
	var failed error
	for _, l := range g.leaves {
		failed = errors.Join(failed, l.stats(&s))
	}
	if failed != nil {
		return s, fmt.Errorf("read statistics of cgroup %s: %w", g.name, failed)
	}
	return s, nil
}

func (l leaf) stats(s *Stats) error {
	f := &files{dir: l.dir}
	if l.Version == 2 {
		l.statsV2(f, s)
		return f.err
	}
	if l.has("cpuacct") {
		s.CPU = orNew(s.CPU)
		s.CPU.Usage, s.CPU.User, s.CPU.System = f.number("cpuacct.usage"), f.number("cpuacct.usage_user"), f.number("cpuacct.usage_sys")
	}
	if l.has("cpu") {
		s.CPU = orNew(s.CPU)
		stat := f.keyed("cpu.stat")
		s.CPU.Throttled, s.CPU.ThrottledTime = stat["nr_throttled"], stat["throttled_time"]
	}
	if l.has("memory") {
		stat := f.keyed("memory.stat")
		s.Memory = &MemoryStats{
			Current: f.number("memory.usage_in_bytes"), Peak: f.number("memory.max_usage_in_bytes"),
			Limit: v1Limit(f.number("memory.limit_in_bytes")),
			RSS:   stat["total_rss"], Cache: stat["total_cache"], Swap: stat["total_swap"],
			OOMKills: f.keyed("memory.oom_control")["oom_kill"],
		}
	}
	if l.has("pids") {
		s.Pids = &PidsStats{Current: f.number("pids.current"), Limit: f.number("pids.max")}
	}
	if l.has("blkio") {
		f.io(&s.IO, "blkio.throttle.io_service_bytes_recursive", parseBlkioBytes)
		f.io(&s.IO, "blkio.throttle.io_serviced_recursive", parseBlkioCounts)
	}
	return f.err
}

func (l leaf) statsV2(f *files, s *Stats) {
	if s.CPU == nil { // else v1 has it
		stat := f.keyed("cpu.stat")
		s.CPU = &CPUStats{
			Usage: stat["usage_usec"] * 1000, User: stat["user_usec"] * 1000, System: stat["system_usec"] * 1000,
			Throttled: stat["nr_throttled"], ThrottledTime: stat["throttled_usec"] * 1000,
		}
	}
	if f.exists("memory.current") {
		stat := f.keyed("memory.stat")
		s.Memory = &MemoryStats{
			Current: f.number("memory.current"), Peak: f.optional("memory.peak"), Limit: f.number("memory.max"),
			RSS: stat["anon"], Cache: stat["file"], Swap: f.optional("memory.swap.current"),
			OOMKills: f.keyed("memory.events")["oom_kill"],
		}
	}
	if f.exists("pids.current") {
		s.Pids = &PidsStats{Current: f.number("pids.current"), Limit: f.number("pids.max")}
	}
	if f.exists("io.stat") {
		f.io(&s.IO, "io.stat", parseIOStat)
	}
}

func orNew(c *CPUStats) *CPUStats {
	if c == nil {
		return &CPUStats{}
	}
	return c
}

// v1Limit makes the largest number of pages, which is how v1 says that there
// is no limit, a 0.
func v1Limit(n uint64) uint64 {
	if n >= 1<<62 {
		return 0
	}
	return n
}
