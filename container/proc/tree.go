package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Process is a process with those that descend from it.
type Process struct {
	PID      int
	PPID     int
	Children []*Process // in the order of their birth
}

// All lists p and its descendants, parents before their children.
func (p *Process) All() []*Process {
	all := []*Process{p}
	for _, c := range p.Children {
		all = append(all, c.All()...)
	}
	return all
}

// maxDepth ends a walk that pids used again could send around in circles.
const maxDepth = 4096

// Tree is the process and all that descend from it. It is sure to be complete
// only when they are frozen: one that is born, or loses its parent, during the
// walk may be missed. That pid itself does not exist is an fs.ErrNotExist; a
// descendant that ended meanwhile is left out.
func (f FS) Tree(pid int) (*Process, error) {
	children := f.children
	if _, err := os.Stat(f.path(pid, "task/"+strconv.Itoa(pid)+"/children")); err != nil {
		// A kernel without CONFIG_PROC_CHILDREN: ask everybody for the parent.
		byParent, err := f.byParent()
		if err != nil {
			return nil, err
		}
		children = func(pid int) ([]int, error) { return byParent[pid], nil }
	}
	p, err := f.tree(pid, 0, children)
	if err != nil {
		return nil, fmt.Errorf("read process tree of pid %d: %w", pid, err)
	}
	return p, nil
}

func (f FS) tree(pid, depth int, children func(int) ([]int, error)) (*Process, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("deeper than %d generations", maxDepth)
	}
	s, err := f.Stat(pid)
	if err != nil {
		return nil, err
	}
	p := &Process{PID: s.PID, PPID: s.PPID}
	pids, err := children(pid)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, c := range pids {
		child, err := f.tree(c, depth+1, children)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		case child.PPID == pid: // else it is somebody else's by now
			p.Children = append(p.Children, child)
		}
	}
	return p, nil
}

// children asks each thread for those that it has made.
func (f FS) children(pid int) ([]int, error) {
	tids, err := numbers(f.path(pid, "task"))
	if err != nil {
		return nil, err
	}
	var all []int
	for _, tid := range tids {
		some, err := read(f, pid, "task/"+strconv.Itoa(tid)+"/children", parsePIDs)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func parsePIDs(r io.Reader) ([]int, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return list[int](strings.TrimSpace(string(data)))
}

func (f FS) byParent() (map[int][]int, error) {
	pids, err := f.PIDs()
	if err != nil {
		return nil, err
	}
	all := map[int][]int{}
	for _, pid := range pids {
		s, err := f.Stat(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[s.PPID] = append(all[s.PPID], pid)
	}
	return all, nil
}
