package restore_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"crucible/container/testenv"
	"crucible/images"
	"crucible/proto/imagepb"
)

// Of a container with all eight namespaces the image says what is needed to make
// each again: compared with what was set up, and with the container that comes
// back from it.
func TestRecordNamespaces(t *testing.T) {
	testenv.Root(t)
	e := &env{t: t, bin: testenv.Binary(t), root: testenv.StateRoot(t)}
	if err := os.Chmod(e.root, 0o711); err != nil { // for a user namespace's root
		t.Fatal(err)
	}
	ip, nsenter := program(t, "ip"), program(t, "nsenter")
	b := e.run(bridge("--userns", "auto", "--cgroupns", "--time-offset", "monotonic=100000", "--time-offset", "boottime=200000",
		"--hostname", "eight", "--pids", "77", "--sysctl", "kernel.domainname=example", "--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=9999", "--sysctl", "fs.mqueue.msg_max=12"),
		python(t), "-c", `import ctypes, time
libc = ctypes.CDLL(None)
libc.shmget(0x1234, 8192, 0o1640)
libc.semget(0x1235, 3, 0o1600)
libc.msgget(0x1236, 0o1644)
print("ready", flush=True)
while True: time.sleep(1000)`)
	eventually(t, "the program", func() error {
		if b.logs()[0] != "ready" {
			return fmt.Errorf("%q", b.logs())
		}
		return nil
	})
	inside := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(nsenter, append([]string{"-t", fmt.Sprint(b.pid), "-n", "-u", ip}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v %s", args, err, out)
		}
		return string(out)
	}
	inside("addr", "add", "10.99.0.1/24", "dev", "lo")
	inside("route", "add", "10.98.0.0/16", "dev", "eth0", "table", "100")
	inside("rule", "add", "from", "10.99.0.1", "lookup", "100", "priority", "500")
	inside("neigh", "add", "10.98.0.7", "lladdr", "02:00:00:00:00:07", "nud", "permanent", "dev", "eth0")
	maps := procFile(t, b, "uid_map")
	b.checkpoint()
	checkEight(t, e, b, maps)
	b.restore()
	for command, want := range map[string]string{
		"route show table 100": "10.98.0.0/16 dev eth0", "rule show": "from 10.99.0.1 lookup 100", "neigh show dev eth0 nud permanent": "10.98.0.7 lladdr 02:00:00:00:00:07",
		"-br addr show lo": "10.99.0.1/24",
	} {
		if got := inside(strings.Fields(command)...); !strings.Contains(got, want) {
			t.Errorf("restored: ip %s: %q, want %q", command, got, want)
		}
	}
	got := b.exec("sh", "-c", "cat /proc/sys/kernel/msgmax /proc/sys/kernel/hostname /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward; tail -n +2 /proc/sysvipc/shm | wc -l")
	if got != "9999\neight\nexample\n1\n1\n" {
		t.Errorf("restored: %q", got)
	}
}

func checkEight(t *testing.T, e *env, b *box, uidMap string) {
	t.Helper()
	image, err := images.Store{Dir: filepath.Join(e.root, "images")}.Open(b.name)
	if err != nil {
		t.Fatal(err)
	}
	var all imagepb.Namespaces
	if err := image.Get(images.Namespaces, &all); err != nil {
		t.Fatal(err)
	}
	must := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	must("number of namespaces", len(all.Namespaces), 8)
	texts := func(messages []*imagepb.Message) string {
		var s []string
		for _, m := range messages {
			s = append(s, m.Text)
		}
		return strings.Join(s, "\n")
	}
	has := func(what, text, part string) {
		t.Helper()
		if !strings.Contains(text, part) {
			t.Errorf("%s are %q, without %q", what, text, part)
		}
	}
	for _, n := range all.Namespaces {
		if n.Host {
			t.Errorf("%v is the host's", n.Kind)
		}
		switch n.Kind {
		case imagepb.NamespaceKind_NAMESPACE_KIND_PID:
			must("highest pid", n.GetPid().GetHighest() >= 1, true)
		case imagepb.NamespaceKind_NAMESPACE_KIND_UTS:
			must("names", n.GetUts().GetHostname()+" "+n.GetUts().GetDomainname(), "eight example")
		case imagepb.NamespaceKind_NAMESPACE_KIND_IPC:
			i := n.GetIpc()
			must("ipc sysctls", i.GetSysctls()["kernel/msgmax"]+" "+i.GetSysctls()["fs/mqueue/msg_max"], "9999 12")
			must("ipc objects", fmt.Sprint(len(i.SharedMemory), len(i.Semaphores), len(i.MessageQueues)), "1 1 1")
			must("shared memory", fmt.Sprintf("%#x %d %o", i.SharedMemory[0].Key, i.SharedMemory[0].Size, i.SharedMemory[0].Mode), "0x1234 8192 640")
			must("semaphores", fmt.Sprintf("%#x %d", i.Semaphores[0].Key, i.Semaphores[0].Size), "0x1235 3")
		case imagepb.NamespaceKind_NAMESPACE_KIND_USER:
			r := n.GetUser().GetUidMap()[0]
			must("uid map", fmt.Sprint(r.Inside, r.Outside, r.Length), strings.Join(strings.Fields(uidMap)[:3], " "))
		case imagepb.NamespaceKind_NAMESPACE_KIND_TIME:
			must("clock offsets", fmt.Sprint(n.GetTime().GetMonotonic().GetSeconds(), n.GetTime().GetBoottime().GetSeconds()), "100000 200000")
			if c := n.GetTime(); c.MonotonicNs < 100000e9 || c.BoottimeNs < c.MonotonicNs+100000e9 {
				t.Errorf("clocks are %v", c)
			}
		case imagepb.NamespaceKind_NAMESPACE_KIND_CGROUP:
			must("pids.max", n.GetCgroup().GetValues()["pids.max"], 77)
		case imagepb.NamespaceKind_NAMESPACE_KIND_NETWORK:
			net := n.GetNetwork()
			has("addresses", texts(net.Addresses), "10.99.0.1/24 dev 1")
			has("routes", texts(net.Routes), "10.98.0.0/16 dev ")
			has("routes", texts(net.Routes), "table 100")
			has("rules", texts(net.Rules), "500: from 10.99.0.1/32 table 100")
			has("neighbours", texts(net.Neighbours), "10.98.0.7")
			must("ip_forward", net.Sysctls["ipv4/ip_forward"], 1)
			must("links", len(net.Links), 2)
		}
	}
	if unknown, err := image.Unknown(); err != nil || len(unknown) != 0 {
		t.Errorf("unknown: %v, %v", unknown, err)
	}
	if _, err := os.Stat(filepath.Join(image.Dir(), images.Counts)); err != nil {
		t.Error(err)
	}
}
