package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

func parents() (map[int]proc.Stat, error) {
	pids, err := proc.Root.PIDs()
	if err != nil {
		return nil, err
	}
	all := map[int]proc.Stat{}
	for _, pid := range pids {
		stat, err := proc.Root.Stat(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[pid] = stat
	}
	return all, nil
}

// tagOf is what a process has inherited as ownerEnv.
func tagOf(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return "" // somebody else's
	}
	for one := range bytes.SplitSeq(data, []byte{0}) {
		if value, ok := bytes.CutPrefix(one, []byte(ownerEnv+"=")); ok {
			return string(value)
		}
	}
	return ""
}

// ownerOfProcess goes from a process up to the child of init above it. It is
// ours if it meets this process, or one with our tag, and foreign if it meets
// another test's tag. Of what remains, orphans without our environment such as
// a container's, its text tells.
func (s *scope) ownerOfProcess(pid int, all map[int]proc.Stat) owner {
	for at := pid; at > 1; at = all[at].PPID {
		if at == os.Getpid() {
			return ours
		}
		if tag := tagOf(at); tag != "" {
			if tag == s.tag {
				return ours
			}
			return foreign
		}
	}
	return unknown
}

// cgroupsOf is a text that holds the cgroups of a process: a container's are
// called by its name.
func cgroupsOf(pid int) string {
	groups, _ := proc.Root.Cgroups(pid)
	var all []string
	for _, g := range groups {
		all = append(all, g.Path)
	}
	return strings.Join(all, " ")
}

func listProcesses(s *scope) ([]item, error) {
	all, err := parents()
	if err != nil {
		return nil, err
	}
	var items []item
	for pid, p := range all {
		if pid == os.Getpid() || p.PPID == 2 || pid == 2 { // kernel threads
			continue
		}
		i := item{id: fmt.Sprintf("%d@%d", pid, p.StartTicks), pid: pid, tie: cgroupsOf(pid)}
		i.owner = func() owner { return s.ownerOfProcess(pid, all) }
		args, _ := proc.Root.Args(pid)
		i.what = fmt.Sprintf("%d (%s), state %s, parent %d: %s", pid, p.Comm, p.State, p.PPID, strings.Join(args, " "))
		items = append(items, i)
	}
	return sortItems(items), nil
}

func listDescriptors(*scope) ([]item, error) {
	fds, err := proc.Root.FDs(os.Getpid())
	if err != nil {
		return nil, err
	}
	// A pidfd that os.FindProcess opened is closed by the collector.
	for _, target := range fds {
		if target == "anon_inode:[pidfd]" {
			runtime.GC()
			if fds, err = proc.Root.FDs(os.Getpid()); err != nil {
				return nil, err
			}
			break
		}
	}
	var items []item
	for fd, target := range fds {
		if target == fmt.Sprintf("/proc/%d/fd", os.Getpid()) {
			continue // the one that lists them
		}
		items = append(items, item{id: strconv.Itoa(fd) + " " + target, what: fmt.Sprintf("%d of this process: %s", fd, target), owner: always})
	}
	return sortItems(items), nil
}

// listCgroups lists those of all hierarchies. One with processes is whose they
// are.
func listCgroups(s *scope) ([]item, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	all, err := parents()
	if err != nil {
		return nil, err
	}
	var items []item
	for _, m := range mounts {
		err := filepath.WalkDir(m, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if !entry.IsDir() || path == m || path == filepath.Join(m, "crucible") {
				return nil // the last one is every container's, and swept in the end
			}
			data, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			pids := strings.Fields(string(data))
			i := item{id: path, what: path}
			if len(pids) > 0 {
				i.what += ", with processes " + strings.Join(pids, " ")
			}
			i.owner = func() owner {
				for _, word := range pids {
					pid, _ := strconv.Atoi(word)
					if s.ownerOfProcess(pid, all) == ours {
						return ours
					}
				}
				return unknown // the path tells
			}
			items = append(items, i)
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
	}
	return items, nil
}

func cgroupMounts() ([]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	var all []string
	for _, m := range mounts {
		all = append(all, m.Mountpoint)
	}
	return all, err
}

// sweep removes crucible/ from the hierarchies where it is empty.
func sweep() {
	mounts, _ := cgroupMounts()
	for _, m := range mounts {
		_ = unix.Rmdir(filepath.Join(m, "crucible"))
	}
}

func listMounts(*scope) ([]item, error) {
	mounts, err := mountinfo.GetMounts(nil)
	var items []item
	for _, m := range mounts {
		items = append(items, item{
			id: fmt.Sprintf("%d %s", m.ID, m.Mountpoint), what: fmt.Sprintf("%s (%s from %s%s)", m.Mountpoint, m.FSType, m.Source, m.Root),
		})
	}
	return sortItems(items), err
}

// listFiles lists all below the directories, except committed images, and what
// is in the directory for temporary files.
func listFiles(s *scope) ([]item, error) {
	var items []item
	add := func(path string) { items = append(items, item{id: path, what: path, owner: always}) }
	for _, dir := range s.dirs {
		images := filepath.Join(dir, "images")
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case path == dir || path == images:
				return nil
			case filepath.Dir(path) == images && !strings.HasPrefix(entry.Name(), "."):
				return fs.SkipDir
			}
			add(path)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(s.temp)
	for _, entry := range entries {
		add(filepath.Join(s.temp, entry.Name()))
	}
	return items, err
}
