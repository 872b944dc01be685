package testenv

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

func (c leakTest) name() string { return strings.ReplaceAll(c.kind+" "+c.what, "/", "_") }

// TestKinds shows that each kind of leak is found while it is there, and not
// any more when it is gone.
func TestKinds(t *testing.T) {
	Root(t)
	dir := watched(t)
	tests := leakTests(t, Name(t), dir)
	for _, c := range append(tests, ownTests(dir)...) {
		t.Run(c.name(), func(t *testing.T) {
			s := newScope(t, []string{dir})
			before, err := s.snapshot()
			must(t, err)
			undo := c.make(t)
			leaks, err := s.wait(before, 0)
			must(t, err)
			if !slices.ContainsFunc(leaks, c.is) {
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

func (c leakTest) is(l Leak) bool { return l.Kind == c.kind && strings.Contains(l.What, c.what) }

// TestForeign shows that the same is nobody's leak if it carries another name:
// that of a test in another process, or of a user's container.
func TestForeign(t *testing.T) {
	Root(t)
	name := "o" + random[:5] + "-1"
	dir := filepath.Join(os.TempDir(), "crucible-"+name)
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	tests := append(leakTests(t, name, dir), leakTest{"process", "sleep 102", func(t *testing.T) func() {
		return orphan(t, "sleep 102", ownerEnv+"=another")
	}}, leakTest{"process", "crucible-serve", func(t *testing.T) func() {
		return orphan(t, "exec -a 'crucible-serve "+name+" "+dir+"' sleep 103", ownerEnv+"=")
	}})
	for _, c := range tests {
		t.Run(c.name(), func(t *testing.T) {
			s := newScope(t, nil)
			all := *s
			all.marks = append(all.marks, name, "sleep 102") // this one is looking for it
			before, err := s.snapshot()
			must(t, err)
			undo := c.make(t)
			defer undo()
			if leaks, err := s.wait(before, 0); err != nil || len(leaks) > 0 {
				t.Errorf("blamed for another's: %v, %v", leaks, err)
			}
			leaks, err := all.wait(before, 0)
			if must(t, err); !slices.ContainsFunc(leaks, c.is) && !strings.Contains(c.what, "sleep 102") {
				t.Errorf("it is not there at all: %v", leaks)
			}
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

// ownTests make what can be this process's only.
func ownTests(dir string) []leakTest {
	return []leakTest{
		{"process", "sleep 100", func(t *testing.T) func() {
			cmd := exec.Command("sleep", "100")
			must(t, cmd.Start())
			return func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		}},
		{"process", "sleep 101", func(t *testing.T) func() { return orphan(t, "sleep 101") }},
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
		{"file", "crucible-left", func(t *testing.T) func() { return touch(t, filepath.Join(os.TempDir(), "crucible-left")) }},
		{"file", "containers", func(t *testing.T) func() { return touch(t, filepath.Join(dir, "containers")) }},
		{"file", ".draft", func(t *testing.T) func() { return touch(t, filepath.Join(dir, "images/.draft")) }},
		{"mount", "tmpfs", func(t *testing.T) func() {
			dir := t.TempDir() // a subtest's
			must(t, unix.Mount("none", dir, "tmpfs", 0, ""))
			return func() { must(t, unix.Unmount(dir, 0)) }
		}},
	}
}

// orphan starts a process whose parent ends at once.
func orphan(t *testing.T, command string, env ...string) (kill func()) {
	t.Helper()
	cmd := exec.Command("bash", "-c", "("+command+") >/dev/null 2>&1 & echo $!")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	must(t, err)
	// Until it has executed the program it is called bash.
	eventually(t, func() bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return err == nil && string(name) == "sleep\n"
	})
	return func() { _ = syscall.Kill(pid, syscall.SIGKILL) }
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(settle); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("does not come to pass")
		}
	}
}

// leakTests make what a name, or a directory, tells whose it is.
func leakTests(t *testing.T, name, root string) []leakTest {
	cgroups, err := cgroupMounts()
	must(t, err)
	list := []leakTest{
		{"mount", root, func(t *testing.T) func() {
			must(t, unix.Mount("none", root, "tmpfs", 0, ""))
			return func() { must(t, unix.Unmount(root, 0)) }
		}},
		{"link", name, func(t *testing.T) func() { return del(t, bridge(t, name)) }},
		{"link", "root=" + root, func(t *testing.T) func() {
			link := bridge(t, "cru"+random)
			undo := del(t, link)
			must(t, netlink.LinkSetAlias(link, "crucible container=x root="+root))
			return undo
		}},
		{"address", "192.0.2.1/32", func(t *testing.T) func() {
			link := bridge(t, name)
			undo := del(t, link)
			must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1).To4(), Mask: net.CIDRMask(32, 32)}}))
			return undo
		}},
		{"forwarding entry", "02:00:5e:00:53:01", func(t *testing.T) func() {
			link := bridge(t, name)
			undo := []func(){del(t, link)}
			// The port's own name is nobody's.
			port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cru" + random, MasterIndex: link.Attrs().Index}, PeerName: name + "q"}
			must(t, netlink.LinkAdd(port))
			undo = append(undo, del(t, port))
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
	must(t, c.Flush())
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

// What belongs to a state root's bridge is known by the bridge's name.
func TestBridgeIsOfItsRoot(t *testing.T) {
	s := newScope(t, nil)
	root := StateRoot(t)
	for text, want := range map[string]bool{
		"table crucible-" + Bridge(root) + " (family 2)": true, Bridge(root) + " (bridge)": true,
		"table crucible (family 2)": false, "table crucible-" + Bridge(root+"x"): false, "cru01020304 (veth)": false,
	} {
		if got := s.ours(item{what: text, owner: (&scope{}).netOwner}); got != want {
			t.Errorf("%q is ours: %v, want %v", text, got, want)
		}
		if !s.ours(item{what: text, owner: (&scope{net: true}).netOwner}) {
			t.Errorf("%q is not ours in a network namespace of our own", text)
		}
	}
}

// A leak says which test gave it its name.
func TestNameGiver(t *testing.T) {
	for range 12 { // so that one name is the beginning of another
		Name(t)
	}
	var name string
	t.Run("inner", func(t *testing.T) { name = Name(t) })
	for text, want := range map[string]string{
		"crucible-serve " + name + " /tmp/crucible-" + stem() + "99999": "TestNameGiver/inner", "/crucible/" + name: "TestNameGiver/inner",
		"/tmp/crucible-" + stem() + "99999, container=" + name: "TestNameGiver/inner", name + "0": "", name[1:]: "", "": "",
	} {
		if got := nameGiver(text); got != want {
			t.Errorf("%q has its name from %q, want %q", text, got, want)
		}
	}
}

// A committed image is what a test wanted.
func TestImagesAreNoLeak(t *testing.T) {
	dir := watched(t)
	s := newScope(t, []string{dir})
	before, err := s.snapshot()
	must(t, err)
	defer touch(t, filepath.Join(dir, "images/web/1/manifest.pb"))()
	must(t, os.MkdirAll(filepath.Join(dir, "images/db/1"), 0o755))
	if leaks, err := s.wait(before, 0); err != nil || len(leaks) > 0 {
		t.Errorf("%v, %v", leaks, err)
	}
}

// What goes away in time is no leak, and is not waited for longer than needed:
// not for the hour that there is.
func TestSettles(t *testing.T) {
	s := newScope(t, nil)
	before, err := s.snapshot()
	must(t, err)
	cmd := exec.Command("sleep", "0.2")
	must(t, cmd.Start())
	go func() { _ = cmd.Wait() }()
	if leaks, err := s.wait(before, time.Hour); err != nil || len(leaks) > 0 {
		t.Errorf("%v, %v", leaks, err)
	}
}

// Whose a process is.
func TestOwnerOfProcess(t *testing.T) {
	start := func(env ...string) *exec.Cmd {
		cmd := exec.Command("sleep", "100")
		cmd.Env = append(os.Environ(), env...)
		must(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		// Until the child has executed its program it has our environment.
		eventually(t, func() bool {
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
			return err == nil && string(name) == "sleep\n"
		})
		return cmd
	}
	s := newScope(t, nil)
	for tag, want := range map[string]owner{s.tag: ours, "another": foreign, "": unknown} {
		pid := start(ownerEnv + "=" + tag).Process.Pid
		all, err := parents()
		must(t, err)
		if got := s.ownerOfProcess(pid, all); tag != "another" && got != ours {
			t.Errorf("a child with the tag %q is %v, not ours", tag, got)
		}
		stat := all[pid]
		stat.PPID = 1 // as if it were an orphan
		all[pid] = stat
		if got := s.ownerOfProcess(pid, all); got != want {
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

func (r *recorder) finish() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

// LeakCheck itself: it speaks up in the end, and only then.
func TestLeakCheck(t *testing.T) {
	for _, leak := range []bool{false, true} {
		t.Run(strconv.FormatBool(leak), func(t *testing.T) {
			patience = 0
			t.Cleanup(func() { patience = settle })
			dir, r := t.TempDir(), &recorder{TB: t}
			outside := os.TempDir()
			LeakCheck(r, dir)
			inside := os.TempDir()
			if inside == outside {
				t.Errorf("temporary files are in %s, as others' are", inside)
			}
			path := filepath.Join(dir, "left")
			if leak {
				touch(t, path)
				must(t, os.Mkdir(inside+"/forgotten", 0o755))
			}
			if len(r.errors) > 0 {
				t.Errorf("too early: %q", r.errors)
			}
			r.finish()
			want := ""
			if leak {
				want = "leak: file " + path + "\nleak: file " + inside + "/forgotten"
				must(t, os.RemoveAll(filepath.Join(inside, "forgotten")))
				must(t, os.Remove(inside))
			}
			if got := strings.Join(r.errors, "\n"); got != want {
				t.Errorf("says %q, want %q", got, want)
			}
			if _, err := os.Stat(inside); err == nil {
				t.Errorf("%s is still there", inside)
			}
		})
	}
}
