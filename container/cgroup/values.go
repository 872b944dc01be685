package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// limit is a file that holds one, and what it holds when there is none, in the
// words of the kernel. For "" it is what the group above has.
type limit struct{ file, none string }

func (l limit) isNone(value string) bool {
	if value == l.none || value == "default "+l.none {
		return true
	}
	// The largest number of pages: v1 shows it where -1 was written, and v2's
	// hugetlb files before anything was.
	n, err := strconv.ParseUint(value, 10, 64)
	return err == nil && (l.none == "-1" || l.none == "max") && n >= 1<<62
}

// limits are the files of a controller that an image keeps. Devices are not
// among them: v2 has no file for them, and the bundle has the rules.
func limits(version int, controller string) []limit {
	switch version {
	case 1:
		return limitsV1(controller)
	case 2:
		return limitsV2(controller)
	}
	return nil
}

func limitsV2(controller string) []limit {
	switch controller {
	case "freezer": // the core
		return []limit{{"cgroup.max.depth", "max"}, {"cgroup.max.descendants", "max"}}
	case "memory":
		return []limit{
			{"memory.max", "max"}, {"memory.high", "max"}, {"memory.low", "0"}, {"memory.min", "0"},
			{"memory.swap.max", "max"}, {"memory.swap.high", "max"}, {"memory.zswap.max", "max"}, {"memory.oom.group", "0"},
		}
	case "cpu":
		return []limit{{"cpu.idle", "0"}, {"cpu.weight", "100"}, {"cpu.max", "max 100000"}, {"cpu.max.burst", "0"}}
	case "cpuset":
		return []limit{{"cpuset.cpus", ""}, {"cpuset.mems", ""}}
	case "pids":
		return []limit{{"pids.max", "max"}}
	case "io":
		return []limit{{"io.max", ""}, {"io.weight", "100"}, {"io.bfq.weight", "100"}, {"io.latency", ""}}
	case "hugetlb":
		return []limit{{"hugetlb.*.max", "max"}}
	}
	return nil
}

func limitsV1(controller string) []limit {
	switch controller {
	case "memory":
		return []limit{
			{"memory.limit_in_bytes", "-1"}, {"memory.memsw.limit_in_bytes", "-1"}, {"memory.soft_limit_in_bytes", "-1"},
			{"memory.kmem.tcp.limit_in_bytes", "-1"}, {"memory.swappiness", ""}, {"memory.oom_control", "0"},
		}
	case "cpu":
		return []limit{
			{"cpu.idle", "0"}, {"cpu.shares", "1024"}, {"cpu.cfs_period_us", "100000"}, {"cpu.cfs_quota_us", "-1"}, {"cpu.cfs_burst_us", "0"},
			{"cpu.rt_period_us", "1000000"}, {"cpu.rt_runtime_us", "0"},
		}
	case "cpuset":
		return []limit{{"cpuset.cpus", ""}, {"cpuset.mems", ""}}
	case "pids":
		return []limit{{"pids.max", "max"}}
	case "blkio":
		return []limit{
			{"blkio.throttle.read_bps_device", ""}, {"blkio.throttle.write_bps_device", ""},
			{"blkio.throttle.read_iops_device", ""}, {"blkio.throttle.write_iops_device", ""},
			{"blkio.weight", "500"}, {"blkio.bfq.weight", "100"},
		}
	case "hugetlb":
		return []limit{{"hugetlb.*.limit_in_bytes", "-1"}}
	case "net_cls":
		return []limit{{"net_cls.classid", "0"}}
	}
	return nil
}

// Values are the limits in force, by the names of their files, without those
// that are at the kernel's default; a limit for several devices has several
// lines. Those of a nested group have its path before the name, "sub/pids.max",
// and "sub/" with no value says that it exists.
func (g *Group) Values() (map[string]string, error) {
	all := map[string]string{}
	for _, l := range g.leaves {
		dirs, err := below(l.dir)
		if err != nil {
			return nil, fmt.Errorf("read the limits of cgroup %s: %w", g.name, err)
		}
		for _, dir := range dirs {
			if dir != "." {
				all[dir+"/"] = ""
			}
			if err := l.values(dir, all); err != nil {
				return nil, fmt.Errorf("read the limits of cgroup %s: %w", g.name, err)
			}
		}
	}
	return all, nil
}

func (l leaf) values(dir string, all map[string]string) error {
	at := filepath.Join(l.dir, dir)
	if l.Version == 2 && dir != "." {
		switch text, err := get(filepath.Join(at, "cgroup.subtree_control")); {
		case err == nil && text != "":
			all[filepath.Join(dir, "cgroup.subtree_control")] = text
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	for _, c := range l.Controllers {
		for _, lim := range limits(l.Version, c) {
			files, err := lim.files(at)
			if err != nil {
				return err
			}
			for _, file := range files {
				value, err := readLimit(filepath.Join(at, file))
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTSUP) {
					continue
				}
				if err != nil {
					return err
				}
				if !lim.isNone(value) && (lim.none != "" || value != above(at, file)) {
					all[filepath.Join(dir, file)] = value
				}
			}
		}
	}
	return nil
}

// files are the names that the limit has in a group: one for each size of huge
// pages.
func (l limit) files(dir string) ([]string, error) {
	if !strings.Contains(l.file, "*") {
		return []string{l.file}, nil
	}
	found, err := filepath.Glob(filepath.Join(dir, l.file))
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found, err
}

func readLimit(file string) (string, error) {
	text, err := get(file)
	if filepath.Base(file) == "memory.oom_control" {
		// Written as a number, read as a table.
		table, err2 := parseKeyed(strings.NewReader(text))
		return strconv.FormatUint(table["oom_kill_disable"], 10), errors.Join(err, err2)
	}
	return text, err
}

func above(dir, file string) string {
	text, _ := get(filepath.Join(filepath.Dir(dir), file))
	return text
}

// WithoutRoom is values without the limits on memory and tasks of the group
// itself: what a process that makes the group's tasks in it must not be bound by.
func WithoutRoom(values map[string]string) map[string]string {
	rest := maps.Clone(values)
	maps.DeleteFunc(rest, func(file, _ string) bool {
		return strings.HasPrefix(file, "memory.") || strings.HasPrefix(file, "pids.")
	})
	return rest
}

// RestoreValues makes the limits what values say, no more and no fewer. Nested
// groups are made again, empty. Where a value needs a hierarchy that the group
// is not in yet, the group must be without processes.
// Values of the other version of cgroups are converted where they can be; a
// value that cannot is an error that names it.
func (g *Group) RestoreValues(values map[string]string) error {
	if err := g.restoreValues(values); err != nil {
		return fmt.Errorf("set the limits of cgroup %s: %w", g.name, err)
	}
	return nil
}

func (g *Group) restoreValues(values map[string]string) error {
	byDir := map[string]map[string]string{".": {}}
	for key, value := range values {
		dir, file := path.Split(key)
		dir = path.Clean(dir)
		if !filepath.IsLocal(dir) {
			return fmt.Errorf("%q is not inside of it", key)
		}
		if byDir[dir] == nil {
			byDir[dir] = map[string]string{}
		}
		if file != "" {
			byDir[dir][file] = value
		}
	}
	// Sorted, a directory comes before those in it.
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		if err := g.restoreDir(dir, byDir[dir]); err != nil {
			return err
		}
	}
	g.single = isSingle(values["pids.max"])
	return nil
}

func (g *Group) restoreDir(dir string, values map[string]string) error {
	list, foreign := g.native(values)
	if len(foreign) > 0 {
		if dir != "." {
			return fmt.Errorf("%s/%s: %w: a nested group of the other version of cgroups", dir, slices.Sorted(maps.Keys(foreign))[0], errUnsupported)
		}
		r, err := resourcesFrom(foreign)
		if err != nil {
			return err
		}
		converted, err := settings(r, g.layout.version)
		if err != nil {
			return err
		}
		list = append(list, converted...)
	}
	for _, s := range list {
		if err := g.join(s.controller, true); err != nil {
			return fmt.Errorf("%s: %w", s.field, err)
		}
	}
	if dir == "." {
		list = append(g.resets(list), list...)
		return write(list, g.dir)
	}
	for _, l := range g.leaves {
		if err := unix.Mkdir(filepath.Join(l.dir, dir), 0o755); err != nil && err != unix.EEXIST {
			return fmt.Errorf("mkdir %s: %w", filepath.Join(l.dir, dir), err)
		}
		if err := l.inherit(filepath.Dir(filepath.Join(l.dir, dir)), filepath.Join(l.dir, dir)); err != nil {
			return err
		}
	}
	if c := values["cgroup.subtree_control"]; c != "" {
		if err := g.shareOut(dir, strings.Fields(c)); err != nil {
			return err
		}
	}
	return write(list, func(c string) string { return filepath.Join(g.dir(c), dir) })
}

// shareOut enables v2 controllers for the children of a nested group, and on
// the way down to it.
func (g *Group) shareOut(dir string, controllers []string) error {
	for _, l := range g.v2Leaves() {
		at := l.dir
		for _, step := range append([]string{"."}, strings.Split(dir, "/")...) {
			at = filepath.Join(at, step)
			for _, c := range controllers {
				if err := l.enable(l.dir, c, true); err != nil {
					return err
				}
				if err := put(filepath.Join(at, "cgroup.subtree_control"), "+"+c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// native makes settings of the values whose files this layout has; the others
// are foreign.
func (g *Group) native(values map[string]string) (list []setting, foreign map[string]string) {
	foreign = map[string]string{}
	for _, file := range slices.Sorted(maps.Keys(values)) {
		if file == "cgroup.subtree_control" {
			continue
		}
		controller, _, _ := strings.Cut(file, ".")
		if controller == "cgroup" {
			controller = "freezer"
		}
		known := slices.ContainsFunc(limits(g.layout.version(controller), controller), func(l limit) bool {
			ok, _ := path.Match(l.file, file)
			return ok
		})
		if !known {
			foreign[file] = values[file]
			continue
		}
		// A line each: a write is one device.
		for line := range strings.Lines(values[file]) {
			list = append(list, setting{field: file, controller: controller, file: file, value: strings.TrimSuffix(line, "\n")})
		}
	}
	return list, foreign
}

// resets are the settings that take away what the group has and list has not.
func (g *Group) resets(list []setting) []setting {
	var all []setting
	for _, l := range g.leaves {
		for _, c := range l.Controllers {
			for _, lim := range limits(l.Version, c) {
				files, _ := lim.files(l.dir)
				for _, file := range files {
					value, err := readLimit(filepath.Join(l.dir, file))
					wanted := slices.ContainsFunc(list, func(s setting) bool { return s.file == file })
					if err == nil && !wanted && lim.none != "" && !lim.isNone(value) {
						all = append(all, setting{field: file, controller: c, file: file, value: lim.none})
					}
				}
			}
		}
	}
	return all
}

// resourcesFrom reads values as the resources of a bundle, from where they can
// be had in the other version's words.
func resourcesFrom(values map[string]string) (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}}
	// Swap alone on v2, memory and swap on v1: the limit on memory is needed.
	limit := values["memory.max"]
	for _, file := range slices.Sorted(maps.Keys(values)) {
		value := values[file]
		n, err := strconv.ParseInt(value, 10, 64)
		switch file {
		case "memory.max", "memory.limit_in_bytes":
			r.Memory.Limit = &n
		case "memory.low", "memory.soft_limit_in_bytes":
			r.Memory.Reservation = &n
		case "memory.memsw.limit_in_bytes":
			r.Memory.Swap = &n
		case "memory.swap.max":
			m, err2 := strconv.ParseInt(limit, 10, 64)
			n += m
			r.Memory.Swap, err = &n, errors.Join(err, err2)
		case "cpu.shares":
			u := uint64(n)
			r.CPU.Shares = &u
		case "cpu.weight":
			u := shares(uint64(n))
			r.CPU.Shares = &u
		case "cpu.cfs_quota_us":
			r.CPU.Quota = &n
		case "cpu.cfs_period_us":
			u := uint64(n)
			r.CPU.Period = &u
		case "cpu.cfs_burst_us", "cpu.max.burst":
			u := uint64(n)
			r.CPU.Burst = &u
		case "cpu.max":
			err = cpuMax(value, r.CPU)
		default:
			pagesize, found := strings.CutPrefix(file, "hugetlb.")
			pagesize, _, _ = strings.Cut(pagesize, ".")
			if !found || pagesize == "" {
				return nil, fmt.Errorf("%s: %w by the version of cgroups that is here", file, errUnsupported)
			}
			if !strings.Contains(file, ".rsvd.") { // settings makes that one itself
				r.HugepageLimits = append(r.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: pagesize, Limit: uint64(n)})
			}
		}
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s: %q cannot be converted to the version of cgroups that is here", file, value)
		}
	}
	return r, nil
}

// cpuMax reads "QUOTA PERIOD".
func cpuMax(value string, c *specs.LinuxCPU) error {
	quota, period, _ := strings.Cut(value, " ")
	p, err := strconv.ParseUint(period, 10, 63)
	if err != nil {
		return err
	}
	c.Period = &p
	if quota == "max" {
		return nil
	}
	q, err := strconv.ParseInt(quota, 10, 64)
	c.Quota = &q
	return err
}
