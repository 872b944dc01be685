package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Update changes the limits that r names and leaves the others. Where a limit
// needs a hierarchy that the group is not in yet, it joins it with all its
// processes.
func (g *Group) Update(r *specs.LinuxResources) error {
	if err := g.update(r); err != nil {
		return fmt.Errorf("update cgroup of container %s: %w", g.name, err)
	}
	return nil
}

func (g *Group) update(r *specs.LinuxResources) error {
	r, err := g.complete(r)
	if err != nil {
		return err
	}
	wanted, err := settings(r, g.layout.version)
	if err != nil {
		return err
	}
	before := len(g.leaves)
	if err := g.set(wanted); err != nil {
		return err
	}
	for _, l := range g.leaves[before:] {
		if err := g.move(l.dir); err != nil {
			return err
		}
	}
	return nil
}

// move brings a hierarchy that was joined late up to the first one: its
// processes are in the new directory when move returns.
func (g *Group) move(dir string) error {
	moved := map[int]bool{}
	for {
		pids, err := g.list("cgroup.procs")
		if err != nil {
			return err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return moved[pid] })
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids { // what they fork meanwhile is in the next round
			moved[pid] = true
			err := put(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
}

// complete adds to r what it leaves as it is and one of the files needs said
// again: on v2 quota and period are one value, and memory with swap counts from
// the limit of memory.
func (g *Group) complete(r *specs.LinuxResources) (*specs.LinuxResources, error) {
	if r == nil {
		return nil, nil
	}
	full := *r
	if dir := g.dir("cpu"); r.CPU != nil && g.layout.version("cpu") == 2 && dir != "" {
		cpu := *r.CPU
		if value, err := get(filepath.Join(dir, "cpu.max")); err == nil && (get64(cpu.Quota) == 0) != (getU64(cpu.Period) == 0) {
			var now specs.LinuxCPU
			if err := cpuMax(value, &now); err != nil {
				return nil, fmt.Errorf("cpu.max: %w", err)
			}
			if get64(cpu.Quota) == 0 {
				cpu.Quota = now.Quota
			} else {
				cpu.Period = now.Period
			}
		}
		full.CPU = &cpu
	}
	dir := g.dir("memory")
	if r.Memory == nil || dir == "" {
		return &full, nil
	}
	memory := *r.Memory
	full.Memory = &memory
	if g.layout.version("memory") == 2 && get64(memory.Swap) > 0 && get64(memory.Limit) == 0 {
		now := (&files{dir: dir}).optional("memory.max")
		if now > 0 {
			limit := int64(now)
			memory.Limit = &limit
		}
	}
	return &full, g.check(&memory)
}

// check is memory.checkBeforeUpdate: a limit below what is in use would have
// v2 kill processes.
func (g *Group) check(m *specs.LinuxMemory) error {
	if m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || get64(m.Limit) <= 0 {
		return nil
	}
	s, err := g.Stats()
	if err != nil {
		return err
	}
	if s.Memory != nil && s.Memory.Current > uint64(*m.Limit) {
		return fmt.Errorf("linux.resources.memory.limit: %d is less than the %d bytes in use", *m.Limit, s.Memory.Current)
	}
	return nil
}
