package engine

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// traces are what the kernel shows of containers: a run may leave none.
type traces struct{ cgroups, links, mounts, processes []string }

// lookForTraces lists all there is on the host. What cannot be read, because it
// went away meanwhile, is not there.
func lookForTraces() traces {
	var t traces
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			t.cgroups = append(t.cgroups, path)
		}
		return nil
	})
	if links, err := os.ReadDir("/sys/class/net"); err == nil {
		for _, l := range links {
			alias, _ := os.ReadFile("/sys/class/net/" + l.Name() + "/ifalias")
			t.links = append(t.links, strings.TrimSpace(l.Name()+" "+string(alias)))
		}
	}
	if f, err := os.Open("/proc/self/mountinfo"); err == nil {
		for lines := bufio.NewScanner(f); lines.Scan(); {
			t.mounts = append(t.mounts, lines.Text())
		}
		f.Close()
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		if data, err := os.ReadFile(path); err == nil {
			t.processes = append(t.processes, filepath.Base(filepath.Dir(path))+": "+string(bytes.ReplaceAll(data, []byte{0}, []byte{' '})))
		}
	}
	return t
}

// beyond are the traces that were not there before, and are a run's by its
// container's name or its state root. A link has the name in its alias.
func (t traces) beyond(before traces, name, root string) (all []string) {
	ours := func(s string) bool { return strings.Contains(s, name) || strings.Contains(s, root) }
	for _, one := range []struct {
		what          string
		before, after []string
	}{
		{"cgroup ", before.cgroups, t.cgroups},
		{"link ", before.links, t.links},
		{"mount ", before.mounts, t.mounts},
		{"process ", before.processes, t.processes},
	} {
		for _, s := range one.after {
			if ours(s) && !slices.Contains(one.before, s) {
				all = append(all, one.what+s)
			}
		}
	}
	return all
}
