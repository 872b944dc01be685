package cgroup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crucible/container/proc"
)

const (
	v1Info = `23 1 8:1 / / rw - ext4 /dev/sda rw
26 18 0:23 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
27 26 0:24 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd
28 26 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
29 26 0:26 / /sys/fs/cgroup/freezer rw,nosuid - cgroup cgroup rw,freezer
`
	hybridInfo = v1Info + `30 26 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
`
	v2Info = `23 1 8:1 / / rw - ext4 /dev/sda rw
26 18 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
31 23 0:23 /user.slice /srv/some\040thing rw - cgroup2 cgroup2 rw
`
	// Inside of a container without a cgroup namespace.
	boundInfo = `29 26 0:26 /docker/0815 /sys/fs/cgroup/freezer ro,nosuid - cgroup cgroup rw,freezer
`
	// cgroup2, and a hierarchy without a controller for old containers.
	namedInfo = v2Info + `32 26 0:29 / /run/cgroup-v1 rw - cgroup cgroup rw,name=systemd
`
)

func TestParseLayout(t *testing.T) {
	systemd := Hierarchy{Version: 1, Mount: "/sys/fs/cgroup/systemd", Root: "/", Controllers: []string{"name=systemd"}}
	cpu := Hierarchy{Version: 1, Mount: "/sys/fs/cgroup/cpu,cpuacct", Root: "/", Controllers: []string{"cpu", "cpuacct"}}
	freezer := Hierarchy{Version: 1, Mount: "/sys/fs/cgroup/freezer", Root: "/", Controllers: []string{"freezer"}}
	unified := Hierarchy{Version: 2, Mount: "/sys/fs/cgroup", Root: "/"}
	for _, c := range []struct {
		name, info, mode string
		want             []Hierarchy
	}{
		{"v1", v1Info, "v1", []Hierarchy{systemd, cpu, freezer}},
		{"hybrid", hybridInfo, "hybrid", []Hierarchy{systemd, cpu, freezer, {Version: 2, Mount: "/sys/fs/cgroup/unified", Root: "/"}}},
		{"v2", v2Info, "v2", []Hierarchy{unified}},
		{"bound", boundInfo, "v1", []Hierarchy{{Version: 1, Mount: "/sys/fs/cgroup/freezer", Root: "/docker/0815", Controllers: []string{"freezer"}}}},
		{"named", namedInfo, "v2", []Hierarchy{unified, {Version: 1, Mount: "/run/cgroup-v1", Root: "/", Controllers: []string{"name=systemd"}}}},
		{"none", "23 1 8:1 / / rw - ext4 /dev/sda rw\n", "v1", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := ParseLayout(strings.NewReader(c.info))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, l.Hierarchies); d != "" {
				t.Error(d)
			}
			if l.Mode() != c.mode {
				t.Errorf("mode is %s, not %s", l.Mode(), c.mode)
			}
		})
	}
	for _, bad := range []string{"x", "1 2 3\n", "29 26 0:26 / /x rw cgroup cgroup rw\n"} {
		if l, err := ParseLayout(strings.NewReader(bad)); err == nil {
			t.Errorf("ParseLayout(%q) = %v, no error", bad, l)
		}
	}
}

// Where both versions have a controller, v1 is its home, but v2 of the freezer;
// hugetlb is where it can be had.
func TestHome(t *testing.T) {
	l, err := ParseLayout(strings.NewReader(hybridInfo))
	if err != nil {
		t.Fatal(err)
	}
	l.Hierarchies[3].Controllers = []string{"hugetlb", "freezer"}
	for controller, want := range map[string]int{"freezer": 2, "cpuacct": 1, "hugetlb": 2, "rdma": 0} {
		if got := l.version(controller); got != want {
			t.Errorf("home of %s is v%d, not v%d", controller, got, want)
		}
	}
}

func TestOwn(t *testing.T) {
	all := []proc.Cgroup{
		{Hierarchy: 3, Controllers: []string{"cpuacct", "cpu"}, Path: "/a/b"},
		{Hierarchy: 2, Controllers: []string{"freezer"}, Path: "/docker/0815/x"},
		{Hierarchy: 0, Path: "/u"},
	}
	for _, c := range []struct {
		h    Hierarchy
		want string
	}{
		{Hierarchy{Version: 1, Mount: "/m", Root: "/", Controllers: []string{"cpu", "cpuacct"}}, "/m/a/b"},
		{Hierarchy{Version: 1, Mount: "/m", Root: "/docker/0815", Controllers: []string{"freezer"}}, "/m/x"},
		{Hierarchy{Version: 1, Mount: "/m", Root: "/docker/4711", Controllers: []string{"freezer"}}, ""},
		{Hierarchy{Version: 1, Mount: "/m", Root: "/", Controllers: []string{"memory"}}, ""},
		{Hierarchy{Version: 2, Mount: "/m", Root: "/", Controllers: []string{"freezer"}}, "/m/u"},
	} {
		got, err := c.h.ownIn(all)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("own cgroup in %+v is %q, %v; want %q", c.h, got, err, c.want)
		}
	}
}

func FuzzParseLayout(f *testing.F) {
	for _, seed := range []string{v1Info, hybridInfo, v2Info, boundInfo, namedInfo} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLayout(strings.NewReader(text))
		if err != nil {
			return
		}
		v2 := 0
		for _, h := range l.Hierarchies {
			if h.Version == 2 {
				v2++
			}
		}
		if v2 > 1 {
			t.Errorf("%d v2 hierarchies in %q", v2, text)
		}
		if m := l.Mode(); m == "v2" != (v2 == 1) && m != "hybrid" {
			t.Errorf("mode %s of %q", m, text)
		}
	})
}
