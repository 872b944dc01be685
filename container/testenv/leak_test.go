package testenv

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// leakTest makes one thing on the machine, and takes it away again.
type leakTest struct {
	kind string
	what string // part of what the check must say
	make func(t *testing.T) (undo func())
}

// TestKinds shows that each kind of leak is found while it is there, and not
// any more when it is gone.
func TestKinds(t *testing.T) {
	Root(t)
	for _, c := range leakTests(t) {
		t.Run(strings.ReplaceAll(c.kind+" "+c.what, "/", "_"), func(t *testing.T) {
			defer alone(t)()
			s := newScope(t.Name(), []string{watched(t)})
			s.shared = true // and so do the tests of other people not disturb
			t.Setenv(ownerEnv, s.tag)
			before, err := s.snapshot()
			if err != nil {
				t.Fatal(err)
			}
			undo := c.make(t)
			leaks, err := s.wait(before, 0)
			if err != nil {
				t.Error(err)
			}
			found := false
			for _, l := range leaks {
				found = found || l.Kind == c.kind && strings.Contains(l.What, c.what)
			}
			if !found {
				t.Errorf("no leak of kind %s about %q in %v", c.kind, c.what, leaks)
			}
			undo()
			if leaks, err = s.wait(before, settle); err != nil || len(leaks) > 0 {
				t.Errorf("after it was undone: %v, %v", leaks, err)
			}
			sweep()
		})
	}
}

// watched is a directory whose files count, the same for a whole test.
func watched(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "testenv-"+stem()+"watched")
	if err := os.MkdirAll(filepath.Join(dir, "images/web/1"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func leakTests(t *testing.T) []leakTest {
	name := Name(t)
	cgroups, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	list := []leakTest{
		{"process", "sleep 100", func(t *testing.T) func() {
			cmd := exec.Command("sleep", "100")
			must(t, cmd.Start())
			return func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		}},
		{"process", "sleep 101", func(t *testing.T) func() {
			// An orphan: its parent ends at once.
			out, err := exec.Command("sh", "-c", "sleep 101 >/dev/null 2>&1 & echo $!").Output()
			must(t, err)
			pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
			must(t, err)
			return func() { _ = syscall.Kill(pid, syscall.SIGKILL) }
		}},
		{"process", "state Z", func(t *testing.T) func() {
			cmd := exec.Command("true")
			must(t, cmd.Start())
			var info unix.Siginfo
			must(t, unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil))
			return func() { _ = cmd.Wait() }
		}},
		{"descriptor", os.DevNull, func(t *testing.T) func() {
			f, err := os.Open(os.DevNull)
			must(t, err)
			return func() { f.Close() }
		}},
		{"file", "crucible-" + name, func(t *testing.T) func() { return touch(t, filepath.Join(os.TempDir(), "crucible-"+name)) }},
		{"file", "containers", func(t *testing.T) func() { return touch(t, filepath.Join(watched(t), "containers")) }},
		{"file", ".draft", func(t *testing.T) func() { return touch(t, filepath.Join(watched(t), "images/.draft")) }},
		{"mount", "tmpfs", func(t *testing.T) func() {
			dir := t.TempDir()
			must(t, unix.Mount("none", dir, "tmpfs", 0, ""))
			return func() { must(t, unix.Unmount(dir, 0)) }
		}},
		{"link", name, func(t *testing.T) func() { return del(t, bridge(t, name)) }},
		{"address", "192.0.2.1/32", func(t *testing.T) func() {
			link := bridge(t, name)
			must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1).To4(), Mask: net.CIDRMask(32, 32)}}))
			return del(t, link)
		}},
		{"forwarding entry", "02:00:5e:00:53:01", func(t *testing.T) func() {
			link := bridge(t, name)
			port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name + "p", MasterIndex: link.Attrs().Index}, PeerName: name + "q"}
			must(t, netlink.LinkAdd(port))
			undo := []func(){del(t, link), del(t, port)}
			mac, _ := net.ParseMAC("02:00:5e:00:53:01")
			must(t, netlink.NeighAdd(&netlink.Neigh{
				LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER, HardwareAddr: mac,
			}))
			return func() {
				undo[1]()
				undo[0]()
			}
		}},
	}
	for _, dir := range cgroups {
		list = append(list, leakTest{"cgroup", filepath.Join(dir, "crucible", name), func(t *testing.T) func() {
			must(t, os.MkdirAll(filepath.Join(dir, "crucible", name), 0o755))
			return func() { must(t, unix.Rmdir(filepath.Join(dir, "crucible", name))) }
		}})
	}
	for _, part := range []string{"table", "chain", "rule", "set", "element"} {
		list = append(list, leakTest{"nftables", part, func(t *testing.T) func() { return makeTable(t, name, part) }})
	}
	return list
}

func bridge(t *testing.T, name string) netlink.Link {
	t.Helper()
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	must(t, netlink.LinkAdd(link))
	return link
}

// del deletes a link in the end, also where the test does not get that far.
func del(t *testing.T, link netlink.Link) func() {
	t.Helper()
	undo := sync.OnceFunc(func() { _ = netlink.LinkDel(link) })
	t.Cleanup(undo)
	return undo
}

func touch(t *testing.T, path string) func() {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o644))
	return func() { must(t, os.Remove(path)) }
}

// makeTable makes an nftables table with all up to a part.
func makeTable(t *testing.T, name, part string) func() {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: name})
	switch part {
	case "chain":
		c.AddChain(&nftables.Chain{Name: "c", Table: table})
	case "rule":
		c.AddRule(&nftables.Rule{Table: table, Chain: c.AddChain(&nftables.Chain{Name: "c", Table: table})})
	case "set", "element":
		set := &nftables.Set{Table: table, Name: "s", KeyType: nftables.TypeIPAddr}
		var elements []nftables.SetElement
		if part == "element" {
			elements = append(elements, nftables.SetElement{Key: net.IPv4(192, 0, 2, 1).To4()})
		}
		must(t, c.AddSet(set, elements))
	}
	if err := c.Flush(); err != nil {
		Skip(t, "make an nftables table: %v", err)
	}
	return func() {
		c.DelTable(table)
		must(t, c.Flush())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A committed image is what a test wanted.
func TestImagesAreNoLeak(t *testing.T) {
	s := newScope(t.Name(), []string{watched(t)})
	s.shared = true
	before, err := s.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer touch(t, filepath.Join(watched(t), "images/web/1/manifest.pb"))()
	must(t, os.MkdirAll(filepath.Join(watched(t), "images/db/1"), 0o755))
	if leaks, err := s.wait(before, 0); err != nil || len(leaks) > 0 {
		t.Errorf("%v, %v", leaks, err)
	}
}

// What goes away in time is no leak, and is not waited for longer than needed.
func TestSettles(t *testing.T) {
	s := newScope(t.Name(), nil)
	s.shared = true
	before, err := s.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "0.2")
	must(t, cmd.Start())
	go func() { _ = cmd.Wait() }()
	began := time.Now()
	leaks, err := s.wait(before, 5*time.Second)
	if took := time.Since(began); err != nil || len(leaks) > 0 || took > 3*time.Second {
		t.Errorf("%v, %v after %v", leaks, err, took)
	}
}

// Whose a process is.
func TestOwnerOfProcess(t *testing.T) {
	start := func(name string, env ...string) *exec.Cmd {
		cmd := exec.Command("sleep", "100")
		cmd.Args[0], cmd.Env = name, append(os.Environ(), env...)
		must(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		return cmd
	}
	s := newScope(t.Name(), nil)
	child, other := start("x"), start("crucible")
	all, err := parents()
	must(t, err)
	if got := s.ownerOfProcess(child.Process.Pid, all); got != ours {
		t.Errorf("a child is %v, not ours", got)
	}
	// As if other were an orphan, and later than the test, or earlier.
	stat := all[other.Process.Pid]
	stat.PPID, stat.StartTicks = 1, s.began+1
	all[other.Process.Pid] = stat
	if got := s.ownerOfProcess(other.Process.Pid, all); got != unknown {
		t.Errorf("an orphan called crucible is %v, not unknown", got)
	}
	stat.StartTicks = s.began - 1
	all[other.Process.Pid] = stat
	if got := s.ownerOfProcess(other.Process.Pid, all); got != foreign {
		t.Errorf("an orphan from before the test is %v, not foreign", got)
	}
	for tag, want := range map[string]owner{s.tag: ours, "another": foreign} {
		tagged := start("x", ownerEnv+"="+tag)
		all[tagged.Process.Pid] = stat // an orphan
		// Until the child has executed its program it has our environment.
		for tagOf(tagged.Process.Pid) != tag {
			time.Sleep(time.Millisecond)
		}
		if got := s.ownerOfProcess(tagged.Process.Pid, all); got != want {
			t.Errorf("an orphan with the tag %q is %v, not %v", tag, got, want)
		}
	}
}

// recorder is a test that is not run by the testing package.
type recorder struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// LeakCheck itself: it speaks up in the end, and only then.
func TestLeakCheck(t *testing.T) {
	t.Setenv(Shared, "1")
	for _, leak := range []bool{false, true} {
		dir, r := t.TempDir(), &recorder{TB: t}
		LeakCheck(r, dir)
		path := filepath.Join(dir, "left")
		if leak {
			touch(t, path)
		}
		if len(r.errors) > 0 {
			t.Errorf("too early: %q", r.errors)
		}
		for _, f := range r.cleanups {
			f()
		}
		want := ""
		if leak {
			want = "leak: file " + path
		}
		if got := strings.Join(r.errors, "\n"); got != want {
			t.Errorf("says %q, want %q", got, want)
		}
	}
}
