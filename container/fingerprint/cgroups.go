package fingerprint

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"crucible/container/cgroup"
)

const cgroupTop = cgroup.Top

// takeCgroup adds the settings of the container's group and of those in it:
// every file that can be written to and read. What can only be read counts
// something.
func (t *taker) takeCgroup() {
	if t.subject.Group == nil {
		return
	}
	byDir := map[string][]string{} // several v1 controllers may be in one hierarchy
	for controller, dir := range t.subject.Group.Paths() {
		if controller == "" {
			controller = "v2"
		}
		byDir[dir] = append(byDir[dir], controller)
	}
	for dir, controllers := range byDir {
		slices.Sort(controllers)
		key := "cgroup[" + strings.Join(controllers, ",") + "]"
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil && (info.Mode()&0o600 == 0o600 || d.Name() == "devices.list") {
				t.cgroupFile(key+strings.TrimPrefix(path, dir), path)
			}
			return nil
		})
		if err != nil {
			t.cannot(key, err)
		}
	}
}

func (t *taker) cgroupFile(name, path string) {
	if t.skipped(name) {
		return // before it is read: some take their time
	}
	value, err := os.ReadFile(path)
	if err != nil {
		t.cannot(name, err)
		return
	}
	var lines []string
	for line := range strings.Lines(string(value)) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	t.put(name, strings.Join(lines, "; "))
}
