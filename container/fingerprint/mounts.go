package fingerprint

import (
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// takeMounts adds the mounts of each mount namespace: those of the first process
// as "mount[/proc]/type", those of another one below the process that has it.
func (t *taker) takeMounts() {
	t.mounts = map[string]string{}
	seen := map[string]bool{}
	for i, p := range t.processes {
		if p.zombie {
			continue
		}
		ns, err := os.Readlink(p.path("ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		prefix := p.key() + "/"
		if i == 0 {
			prefix = ""
		}
		f, err := os.Open(p.path("mountinfo"))
		if err != nil {
			t.cannot(prefix+"mount", err)
			continue
		}
		all, err := mountinfo.GetMountsFromReader(f, nil)
		f.Close()
		if err != nil {
			t.cannot(prefix+"mount", err)
			continue
		}
		t.mountFacts(prefix, all)
	}
}

// mountFacts names mounts by their mount points: of several at one place, the
// later ones have a number.
func (t *taker) mountFacts(prefix string, all []*mountinfo.Info) {
	count := map[string]int{}
	names := map[int]string{}
	peers := map[string]string{} // peer group, the first mount in it
	for _, m := range all {
		name := m.Mountpoint
		if count[name]++; count[name] > 1 {
			name = fmt.Sprintf("%s#%d", name, count[name])
		}
		names[m.ID] = prefix + "mount[" + name + "]"
		t.mounts[fmt.Sprint(m.ID)] = names[m.ID]
		for _, o := range strings.Fields(m.Optional) {
			if group, ok := strings.CutPrefix(o, "shared:"); ok && peers[group] == "" {
				peers[group] = names[m.ID]
			}
		}
	}
	for _, m := range all {
		key := names[m.ID]
		t.put(key+"/type", m.FSType)
		t.put(key+"/source", m.Source)
		t.put(key+"/root", m.Root)
		t.put(key+"/options", m.Options)
		for _, o := range strings.Split(m.VFSOptions, ",") {
			name, value, _ := strings.Cut(o, "=")
			t.put(key+"/super/"+name, value)
		}
		t.put(key+"/propagation", propagation(m.Optional, peers))
		if parent, ok := names[m.Parent]; ok && parent != key {
			t.put(key+"/parent", parent)
		} else {
			t.put(key+"/parent", "none")
		}
		if m.Major != 0 { // else the kernel counts them as they are mounted
			t.put(key+"/device", fmt.Sprintf("%d:%d", m.Major, m.Minor))
		}
	}
}

// propagation names peer groups, which have numbers of the kernel's, by their
// first mount.
func propagation(optional string, peers map[string]string) string {
	var all []string
	for _, o := range strings.Fields(optional) {
		if kind, group, ok := strings.Cut(o, ":"); ok {
			name := peers[group]
			if name == "" {
				name = "outside"
			}
			o = kind + " with " + name
		}
		all = append(all, o)
	}
	if len(all) == 0 {
		return "private"
	}
	return strings.Join(all, ", ")
}
