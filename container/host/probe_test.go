package host

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

func probeAsRoot(t *testing.T) map[string]Row {
	t.Helper()
	testenv.Root(t)
	rows := map[string]Row{}
	for _, row := range Probe(context.Background(), Options{Root: filepath.Join(t.TempDir(), "not", "yet")}) {
		rows[row.Group+"/"+row.Name] = row
	}
	return rows
}

// Root can tell everything, and a machine on which the tests run can do what
// is required.
func TestProbeAsRoot(t *testing.T) {
	for name, row := range probeAsRoot(t) {
		if row.State == Unknown {
			t.Errorf("%s: could not tell: %s", name, row.Detail)
		}
		if row.Required && row.State != Good {
			t.Errorf("%s: %v: %s", name, row.State, row.Detail)
		}
	}
}

// The kernel's own configuration, where it can be read, agrees with what the
// probes found without reading it.
func TestProbeAgreesWithConfig(t *testing.T) {
	rows := probeAsRoot(t)
	config := kernelConfig(t)
	if config == nil {
		t.Log("this kernel does not show its configuration: nothing to compare with")
		return
	}
	for name, option := range map[string]string{
		"kernel/checkpoint/restore": "CHECKPOINT_RESTORE",
		"kernel/kcmp":               "KCMP",
		"kernel/seccomp filter":     "SECCOMP_FILTER",
		"memory/soft-dirty":         "MEM_SOFT_DIRTY",
		"memory/pagemap":            "PROC_PAGE_MONITOR",
		"memory/userfaultfd":        "USERFAULTFD",
		"namespaces/user":           "USER_NS",
		"namespaces/time":           "TIME_NS",
		"namespaces/cgroup":         "CGROUPS",
		"filesystems/overlay":       "OVERLAY_FS",
		"network/veth":              "VETH",
		"network/bridge":            "BRIDGE",
		"network/packet sockets":    "PACKET",
		"network/nftables":          "NF_TABLES",
		"network/socket diagnosis":  "UNIX_DIAG",
	} {
		row, ok := rows[name]
		if !ok {
			t.Errorf("%s: no such row", name)
			continue
		}
		// A module that this machine does not carry is configured, and missing.
		built := config["CONFIG_"+option]
		if want := built == "y"; built != "m" && (row.State == Good) != want {
			t.Errorf("%s: %v (%s), but CONFIG_%s=%s", name, row.State, row.Detail, option, built)
		}
	}
}

func kernelConfig(t *testing.T) map[string]string {
	file, err := os.Open("/proc/config.gz")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]string{}
	lines := bufio.NewScanner(unzipped)
	for lines.Scan() {
		if option, value, ok := strings.Cut(lines.Text(), "="); ok {
			config[option] = value
		}
	}
	return config
}

// traces is what a probe could leave on the host.
func traces(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	all["mounts"] = string(mounts)
	for _, kind := range []string{"mnt", "net", "user", "time_for_children", "uts"} {
		all[kind], _ = os.Readlink("/proc/self/ns/" + kind)
	}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	open := map[string]int{}
	for _, fd := range fds {
		to, _ := os.Readlink(fd)
		open[strings.TrimRight(to, "0123456789[]")]++
	}
	for _, kind := range []string{"mnt:", "net:", "anon_inode:[userfaultfd]", "anon_inode:[pidfd]", "anon_inode:[fscontext]", "socket:"} {
		if open[kind] > 0 {
			all["open "+kind] = "yes"
		}
	}
	left, _ := filepath.Glob(dir + "/*")
	hidden, _ := filepath.Glob(dir + "/.probe-*")
	all["files"] = strings.Join(append(left, hidden...), " ")
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/crucible/probe-*")
	unified, _ := filepath.Glob("/sys/fs/cgroup/crucible/probe-*")
	all["cgroups"] = strings.Join(append(groups, unified...), " ")
	var status unix.WaitStatus
	if _, err := unix.Wait4(-1, &status, unix.WNOHANG, nil); err != unix.ECHILD {
		all["children"] = "yes"
	}
	return all
}

func TestProbeLeavesNothing(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	before := traces(t, dir)
	Probe(context.Background(), Options{Root: dir})
	for what, after := range traces(t, dir) {
		if after != before[what] {
			t.Errorf("%s: %q before, %q after", what, before[what], after)
		}
	}
}

// Many at once reach the process's main thread sooner or later; what it shows
// as /proc/self must stay.
func TestOnThreadSparesMainThread(t *testing.T) {
	testenv.Root(t)
	before, _ := os.Readlink("/proc/self/ns/uts")
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if err := apart(unix.CLONE_NEWUTS, func() error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if after, _ := os.Readlink("/proc/self/ns/uts"); after != before {
		t.Errorf("main thread went from %s to %s", before, after)
	}
}

// The questions that ask for what no kernel has get a no, and the right one.
func TestProbesCanSayNo(t *testing.T) {
	testenv.Root(t)
	for _, test := range []struct {
		name string
		try  func() error
		want error
	}{
		{"link of an unknown kind", func() error { return apart(unix.CLONE_NEWNET, func() error { return tryLink("nosuchkind") }) }, unix.EOPNOTSUPP},
		{"sockets of an unknown protocol", func() error {
			return apart(unix.CLONE_NEWNET, diag{"none", unix.AF_INET, 253, 56}.try)
		}, unix.ENOENT},
		{"sockets of an unknown family", diag{"none", unix.AF_MAX - 1, 0, 56}.try, unix.ENOENT},
		{"namespaces that contradict each other", func() error {
			return tryChild(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_FS})
		}, unix.EINVAL},
		{"a cgroup that is none", func() error {
			return tryChild(&syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: 0})
		}, unix.EBADF},
	} {
		if err := test.try(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

func TestExisting(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir: dir, filepath.Join(dir, "a", "b"): dir, "/": "/"} {
		if got, err := existing(path); err != nil || got != want {
			t.Errorf("existing(%s) = %s, %v; want %s", path, got, err, want)
		}
	}
	for _, path := range []string{file, filepath.Join(file, "a")} {
		if got, err := existing(path); err == nil {
			t.Errorf("existing(%s) = %s", path, got)
		}
	}
	if a := askRoot(filepath.Join(file, "a")); a.state != Missing {
		t.Errorf("a place below a file: %+v", a)
	}
}
