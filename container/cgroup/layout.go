package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// Top is the directory below which each container has its own, in every
// hierarchy that it needs.
const Top = "crucible"

// Layout says where each hierarchy is mounted. At most one is v2.
type Layout struct {
	Hierarchies []Hierarchy `json:"hierarchies"`
}

// Hierarchy is one tree of cgroups.
type Hierarchy struct {
	Version int    `json:"version"` // 1 or 2
	Mount   string `json:"mount"`   // where crucible/ is made: the mount point, or a directory below it that is ours
	Root    string `json:"root"`    // the cgroup that is seen there, as in /proc/PID/cgroup
	// On v1 as mounted ("cpu", "cpuacct", or "name=systemd"); on v2 those that
	// no v1 hierarchy has taken, and "freezer", which v2 has in its core from
	// Linux 5.2 on.
	Controllers []string `json:"controllers,omitempty"`
}

// ParseLayout finds the hierarchies in /proc/PID/mountinfo. Which controllers
// v2 has stands elsewhere: see [Detect].
func ParseLayout(r io.Reader) (Layout, error) {
	mounts, err := mountinfo.GetMountsFromReader(r, mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return Layout{}, fmt.Errorf("read mountinfo: %w", err)
	}
	var l Layout
	for _, m := range mounts {
		h := Hierarchy{Version: 1, Mount: m.Mountpoint, Root: m.Root, Controllers: v1Controllers(m.VFSOptions)}
		if m.FSType == "cgroup2" {
			h.Version, h.Controllers = 2, nil
		}
		i := slices.IndexFunc(l.Hierarchies, h.same)
		switch {
		case i < 0:
			l.Hierarchies = append(l.Hierarchies, h)
		case len(h.Root) < len(l.Hierarchies[i].Root):
			// Mounted more than once, as in a container whose engine binds a
			// part of it somewhere: the mount that shows most is the one.
			l.Hierarchies[i] = h
		}
	}
	return l, nil
}

func (h Hierarchy) same(o Hierarchy) bool {
	return h.Version == o.Version && slices.Equal(h.Controllers, o.Controllers)
}

// v1Controllers takes them from a super block's options, which also hold
// "rw", and on some kernels "xattr", "clone_children", "noprefix".
func v1Controllers(options string) []string {
	var all []string
	for _, o := range strings.Split(options, ",") {
		switch {
		case o == "rw", o == "ro", o == "xattr", o == "clone_children", o == "noprefix", o == "seclabel", o == "favordynmods":
		case strings.HasPrefix(o, "release_agent="), o == "":
		default:
			all = append(all, o)
		}
	}
	slices.Sort(all)
	return all
}

// Detect finds the hierarchies of the caller's mount namespace.
func Detect() (Layout, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return Layout{}, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	defer f.Close()
	l, err := ParseLayout(f)
	if err != nil {
		return Layout{}, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	for i := range l.Hierarchies {
		h := &l.Hierarchies[i]
		if h.Version != 2 {
			continue
		}
		if err := h.detectV2(); err != nil {
			return Layout{}, err
		}
	}
	if _, ok := l.home("freezer"); !ok {
		return Layout{}, errors.New("find the cgroup hierarchies: no freezer: mount cgroup2 at /sys/fs/cgroup (Linux 5.2 or later), or a v1 hierarchy with the freezer controller")
	}
	return l, nil
}

// detectV2 reads the controllers, and moves down to our own cgroup where the
// top of the hierarchy is not ours to write to but that one has been delegated
// to us (Documentation/admin-guide/cgroup-v2.rst, "Delegation").
func (h *Hierarchy) detectV2() error {
	if unix.Access(h.Mount, unix.W_OK) != nil {
		own, err := h.own(0)
		if err == nil && unix.Access(own, unix.W_OK) == nil {
			h.Root, h.Mount = filepath.Join(h.Root, strings.TrimPrefix(own, h.Mount)), own
		}
	}
	data, err := os.ReadFile(filepath.Join(h.Mount, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("find the controllers of cgroup v2: %w", err)
	}
	h.Controllers = strings.Fields(string(data))
	if h.freezes() {
		h.Controllers = append(h.Controllers, "freezer")
	}
	return nil
}

// freezes tells whether v2 can freeze, as it can from Linux 5.2 on: every
// cgroup has cgroup.freeze then, except the root. Where there is no other yet
// one of ours is made for the moment.
func (h Hierarchy) freezes() bool {
	if unix.Access(filepath.Join(h.Mount, "cgroup.freeze"), unix.F_OK) == nil {
		return true
	}
	top := filepath.Join(h.Mount, Top)
	if unix.Mkdir(top, 0o755) == nil {
		defer func() { _ = unix.Rmdir(top) }()
	}
	return unix.Access(filepath.Join(top, "cgroup.freeze"), unix.F_OK) == nil
}

// own is the directory of the cgroup that a thread is in; 0 is the caller's.
func (h Hierarchy) own(tid int) (string, error) {
	all, err := cgroupsOf(tid)
	if err != nil {
		return "", err
	}
	return h.ownIn(all)
}

func cgroupsOf(tid int) ([]proc.Cgroup, error) {
	if tid != 0 {
		return proc.Root.Cgroups(tid)
	}
	f, err := os.Open("/proc/thread-self/cgroup")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return proc.ParseCgroups(f)
}

func (h Hierarchy) ownIn(all []proc.Cgroup) (string, error) {
	for _, c := range all {
		if h.Version == 2 && c.Hierarchy != 0 || h.Version == 1 && !sameSet(h.Controllers, c.Controllers) {
			continue
		}
		rel, err := filepath.Rel(h.Root, c.Path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			return "", fmt.Errorf("cgroup %s is not below %s, which is all that %s shows", c.Path, h.Root, h.Mount)
		}
		return filepath.Join(h.Mount, rel), nil
	}
	return "", fmt.Errorf("no hierarchy %s in /proc/PID/cgroup", strings.Join(h.Controllers, ","))
}

func sameSet(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

// Mode is "v1", "hybrid" or "v2": where the controllers are. On a hybrid
// layout v2 is mounted too, but has the controllers that v1 left over.
func (l Layout) Mode() string {
	var versions [3]bool
	for _, h := range l.Hierarchies {
		// A named hierarchy has no controller: some mount name=systemd beside
		// v2 for old containers.
		named := func(c string) bool { return strings.HasPrefix(c, "name=") }
		if h.Version == 2 || !slices.ContainsFunc(h.Controllers, named) {
			versions[h.Version] = true
		}
	}
	switch {
	case versions[1] && versions[2]:
		return "hybrid"
	case versions[2]:
		return "v2"
	}
	return "v1"
}

// home is the hierarchy that a controller is used in. Where both versions have
// a freezer it is v2's. A task that is stopped (SIGSTOP, Ctrl-Z) when v1 freezes
// it cannot be attached to until the thaw: ptrace_attach waits for it to trap
// (wait_on_bit JOBCTL_TRAPPING_BIT in kernel/ptrace.c), and it sleeps in the
// freezer. CRIU attaches to frozen tasks, and would hang for good.
func (l Layout) home(controller string) (Hierarchy, bool) {
	order := []int{1, 2}
	if controller == "freezer" {
		order = []int{2, 1}
	}
	for _, version := range order {
		for _, h := range l.Hierarchies {
			if h.Version == version && slices.Contains(h.Controllers, controller) {
				return h, true
			}
		}
	}
	return Hierarchy{}, false
}

// version is that of a controller's home; 0: nobody has it.
func (l Layout) version(controller string) int {
	h, _ := l.home(controller)
	return h.Version
}
