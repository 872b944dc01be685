package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/images/inspect"
)

func newImageTreeCommand(a *app) *cobra.Command {
	return a.viewed(&cobra.Command{
		Use:   "tree [flags] NAME[@N]",
		Short: "Show the process tree in an image, with threads and sessions",
		Long: `Show the process tree in an image: each process below its parent, with its threads
in braces, and the session or process group where it is another than its parent's.

Exit status: 0 success, 3 no such image, 6 the image cannot be read.`,
		Example: "  crucible image tree web",
	}, func(i *images.Image) error {
		c, err := inspect.Read(i)
		if err != nil {
			return err
		}
		roots := treeOf(c.Processes)
		return a.print(a.json, roots, func() error {
			var t table
			for _, root := range roots {
				t.branch(root, nil, "", "")
			}
			return a.printTable(t)
		})
	})
}

// branch is a process in `crucible image tree --json`.
type branch struct {
	*inspect.Process
	Children []*branch `json:"children,omitempty"`
}

// treeOf puts processes below their parents. The roots are those whose parent
// is not in the container.
func treeOf(all []*inspect.Process) (roots []*branch) {
	byPid := map[int]*branch{}
	for _, p := range all {
		byPid[p.Pid] = &branch{Process: p}
	}
	for _, p := range all {
		if parent := byPid[p.Parent]; parent != nil && p.Parent != p.Pid {
			parent.Children = append(parent.Children, byPid[p.Pid])
		} else {
			roots = append(roots, byPid[p.Pid])
		}
	}
	return roots
}

// branch adds a process's line, its threads' and its children's.
func (t *table) branch(b, parent *branch, first, rest string) {
	var words []string
	switch {
	case parent == nil || b.Session != parent.Session:
		words = append(words, fmt.Sprintf("session %d", b.Session))
		if b.Group != b.Session {
			words = append(words, fmt.Sprintf("group %d", b.Group))
		}
	case b.Group != parent.Group:
		words = append(words, fmt.Sprintf("group %d", b.Group))
	}
	if b.State != "running" {
		words = append(words, b.State)
	}
	if b.Ended != "" {
		words = append(words, b.Ended)
	}
	line := fmt.Sprintf("%s%d %s", first, b.Pid, b.Command())
	if len(words) > 0 { // before what may be cut off
		line = fmt.Sprintf("%s%d (%s) %s", first, b.Pid, strings.Join(words, ", "), b.Command())
	}
	t.add(line)
	below := threadLines(b.Threads[1:])
	for n, text := range below {
		t.add(rest + corner(n == len(below)-1 && len(b.Children) == 0) + text)
	}
	for n, child := range b.Children {
		last := n == len(b.Children)-1
		further := rest + "│  "
		if last {
			further = rest + "   "
		}
		t.branch(child, b, rest+corner(last), further)
	}
}

func corner(last bool) string {
	if last {
		return "└─ "
	}
	return "├─ "
}

// threadLines are the threads of a process, those of one name on a line.
func threadLines(threads []inspect.Thread) (lines []string) {
	numbers := map[string][]string{}
	var names []string
	for _, t := range threads {
		if numbers[t.Comm] == nil {
			names = append(names, t.Comm)
		}
		numbers[t.Comm] = append(numbers[t.Comm], fmt.Sprint(t.Tid))
	}
	for _, name := range names {
		lines = append(lines, fmt.Sprintf("{%s} %s", name, strings.Join(numbers[name], " ")))
	}
	return lines
}
