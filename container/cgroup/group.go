package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/name"
)

// Group is the cgroup of a container: a directory of the same name in each
// hierarchy that it needs. What is true is in the kernel: several processes may
// each have a Group of the same container. Update alone changes the Group.
type Group struct {
	name   string
	layout Layout
	leaves []leaf // the freezer's first
	// pids.max is 1: a thread of ours cannot stand in the group while it
	// clones the one task that may, see Start.
	single bool
}

// leaf is a group's directory in one hierarchy.
type leaf struct {
	Hierarchy
	dir string
}

func (l leaf) has(controller string) bool { return slices.Contains(l.Controllers, controller) }

// forStats are the controllers that a group is in for [Group.Stats] alone.
// What the others cost, on Linux 6.18, two CPUs (medians in microseconds):
//
//	            mkdir   enter+leave   rmdir
//	freezer        27            35      17
//	memory         58            35      38
//	cpuacct        37            35      22
//	pids           44            35      21
//	cpu            36            35      22
//	cpuset         76            40      35
//	blkio          61            40      32
//	devices        34            35      19
//	v2             42      (none)        25
//
// Doing the hierarchies in parallel goroutines takes longer, not shorter
// (mkdir of four: 168 for 128; rmdir 164 for 89): cgroup_mutex is one for all.
func forStats(version int) []string {
	if version == 2 {
		// cpu.stat has the times without its controller.
		return []string{"memory", "pids"}
	}
	return []string{"memory", "cpuacct", "pids"}
}

// Create makes crucible/NAME in the hierarchies that are needed: the freezer,
// those for statistics, and what r asks for. Then it sets r's limits. A group
// of that name without a process, which a crash may have left, is replaced; one
// with processes gives fs.ErrExist.
func (l Layout) Create(container string, r *specs.LinuxResources) (_ *Group, err error) {
	if err := name.ValidName(container); err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	wanted, err := settings(r, l.version)
	if err != nil {
		return nil, fmt.Errorf("create cgroup of container %s: %w", container, err)
	}
	g := &Group{name: container, layout: l}
	defer func() {
		if err != nil {
			for _, leaf := range slices.Backward(g.leaves) {
				_ = unix.Rmdir(leaf.dir)
			}
			err = fmt.Errorf("create cgroup of container %s: %w", container, err)
		}
	}()
	for _, c := range []string{"freezer", "memory", "cpuacct", "pids"} {
		_, ok := l.home(c)
		stats := slices.Contains(forStats(l.version(c)), c)
		if c != "freezer" && (!ok || !stats) {
			continue
		}
		if err := g.join(c, false); err != nil {
			return nil, err
		}
	}
	return g, g.set(wanted)
}

// set makes sure that the group is in the hierarchies of the settings, and
// writes them.
func (g *Group) set(wanted []setting) error {
	for _, s := range wanted {
		if err := g.join(s.controller, true); err != nil {
			return fmt.Errorf("%s: %w", s.field, err)
		}
		if s.file == "pids.max" {
			g.single = isSingle(s.value)
		}
	}
	return write(wanted, g.dir)
}

func isSingle(pidsMax string) bool { return pidsMax == "1" || pidsMax == "0" }

// dir is the group's directory in the hierarchy of a controller, or "".
func (g *Group) dir(controller string) string {
	for _, leaf := range g.leaves {
		if leaf.has(controller) {
			return leaf.dir
		}
	}
	return ""
}

// join makes the group's directory in the hierarchy of a controller unless it
// is there. Not must: a v2 controller that cannot be had is done without.
func (g *Group) join(controller string, must bool) error {
	h, ok := g.layout.home(controller)
	if !ok {
		return fmt.Errorf("no %s controller on this machine", controller)
	}
	i := slices.IndexFunc(g.leaves, func(l leaf) bool { return l.Mount == h.Mount })
	if i < 0 {
		dir := filepath.Join(h.Mount, Top, g.name)
		if err := makeLeaf(h, dir); err != nil {
			return err
		}
		g.leaves = append(g.leaves, leaf{Hierarchy: h, dir: dir})
	}
	if h.Version == 2 && controller != "freezer" {
		return h.enable(filepath.Join(h.Mount, Top, g.name), controller, must)
	}
	return nil
}

// makeLeaf makes a group's directory, and crucible/ where it is missing: that
// one stays when the last container goes, see [Layout.Sweep].
func makeLeaf(h Hierarchy, dir string) error {
	top := filepath.Dir(dir)
	for range 10 { // Sweep may take crucible/ away between the two mkdirs
		err := unix.Mkdir(dir, 0o755)
		switch err {
		case nil:
			return h.inherit(top, dir)
		case unix.ENOENT:
			if err := unix.Mkdir(top, 0o755); err != nil && err != unix.EEXIST {
				return &os.PathError{Op: "mkdir", Path: top, Err: err}
			}
		case unix.EEXIST:
			if err := removeTree(dir); err != nil {
				if errors.Is(err, unix.EBUSY) {
					return fmt.Errorf("%s has processes: %w", dir, fs.ErrExist)
				}
				return err
			}
		default:
			return &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
	}
	return fmt.Errorf("%s: somebody keeps removing or making it", dir)
}

// inherit fills a fresh v1 cpuset: it is empty, and takes no process until it
// has CPUs and memory nodes (Documentation/admin-guide/cgroup-v1/cpusets.rst).
func (h Hierarchy) inherit(top, dir string) error {
	if h.Version != 1 || !slices.Contains(h.Controllers, "cpuset") {
		return nil
	}
	for _, to := range []string{top, dir} {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if have, err := get(filepath.Join(to, file)); err != nil || have != "" {
				continue
			}
			value, err := get(filepath.Join(filepath.Dir(to), file))
			if err != nil {
				return err
			}
			if err := put(filepath.Join(to, file), value); err != nil {
				return err
			}
		}
	}
	return nil
}

// enable makes a v2 controller available in a group, by the cgroup.subtree_control
// of all above it.
func (h Hierarchy) enable(dir, controller string, must bool) error {
	has := func(at string) bool {
		text, err := get(filepath.Join(at, "cgroup.controllers"))
		return err == nil && slices.Contains(strings.Fields(text), controller)
	}
	if has(dir) {
		return nil
	}
	for _, at := range []string{h.Mount, filepath.Dir(dir)} {
		err := put(filepath.Join(at, "cgroup.subtree_control"), "+"+controller)
		if err == nil {
			continue
		}
		if !must {
			return nil
		}
		if errors.Is(err, unix.EBUSY) {
			// "No internal processes": a cgroup other than the root has either
			// processes or children with controllers (cgroup-v2.rst).
			return fmt.Errorf("%w: processes are in %s itself, so that it cannot share out controllers: move them into a child of it first", err, at)
		}
		return err
	}
	return nil
}

// Open finds the group of a container by its name alone, also what a crash has
// left of it. There is none in any hierarchy: fs.ErrNotExist.
func (l Layout) Open(container string) (*Group, error) {
	if err := name.ValidName(container); err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	g := &Group{name: container, layout: l}
	for _, h := range l.Hierarchies {
		dir := filepath.Join(h.Mount, Top, container)
		if unix.Access(dir, unix.F_OK) == nil {
			g.leaves = append(g.leaves, leaf{Hierarchy: h, dir: dir})
		}
	}
	if len(g.leaves) == 0 {
		return nil, fmt.Errorf("open cgroup of container %s: no %s/%s in any hierarchy: %w", container, Top, container, fs.ErrNotExist)
	}
	home, _ := l.home("freezer")
	slices.SortStableFunc(g.leaves, func(a, b leaf) int {
		return cmp.Compare(b2i(a.Mount != home.Mount), b2i(b.Mount != home.Mount))
	})
	if dir := g.dir("pids"); dir != "" {
		v, _ := get(filepath.Join(dir, "pids.max")) // v2 may lack the controller
		g.single = isSingle(v)
	}
	return g, nil
}

// Again opens the group once more: by an Update of another process it may have
// joined hierarchies that this Group does not know.
func (g *Group) Again() (*Group, error) { return g.layout.Open(g.name) }

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Name is the container's.
func (g *Group) Name() string { return g.name }

// Paths maps each controller ("" stands for v2) to the group's directory.
func (g *Group) Paths() map[string]string {
	all := map[string]string{}
	for _, leaf := range g.leaves {
		if leaf.Version == 2 {
			all[""] = leaf.dir
			continue
		}
		for _, c := range leaf.Controllers {
			all[c] = leaf.dir
		}
	}
	return all
}

// Pids lists the processes in the group and in the groups nested in it. The
// freezer's hierarchy is the one that is asked.
func (g *Group) Pids() ([]int, error) {
	pids, err := g.list("cgroup.procs")
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", g.name, err)
	}
	return pids, nil
}

func (g *Group) list(file string) ([]int, error) {
	root := g.leaves[0].dir
	dirs, err := below(root)
	if err != nil {
		return nil, err
	}
	var all []int
	for i, dir := range dirs {
		pids, err := numbers(filepath.Join(root, dir, file))
		if err != nil && (i == 0 || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		all = append(all, pids...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Nested tells which processes are in a group below this one, in any hierarchy,
// and in which: its path from here.
func (g *Group) Nested() (map[int]string, error) {
	all := map[int]string{}
	for _, l := range g.leaves {
		var st unix.Stat_t
		// kernfs counts a directory's directories: mostly there are none.
		if unix.Stat(l.dir, &st) == nil && st.Nlink <= 2 {
			continue
		}
		dirs, err := below(l.dir)
		if err != nil {
			return nil, fmt.Errorf("list the groups of cgroup %s: %w", g.name, err)
		}
		for _, dir := range dirs[1:] {
			// A group that is gone again, or one for threads (cgroups(7)).
			pids, _ := numbers(filepath.Join(l.dir, dir, "cgroup.procs"))
			for _, pid := range pids {
				all[pid] = dir
			}
		}
	}
	return all, nil
}

// DirFD opens the group's directory for clone3(2) with CLONE_INTO_CGROUP, which
// knows v2 only: (nil, nil) where the group has no directory there.
func (g *Group) DirFD() (*os.File, error) {
	for _, leaf := range g.leaves {
		if leaf.Version == 2 {
			return os.OpenFile(leaf.dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
		}
	}
	return nil, nil
}
