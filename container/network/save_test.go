package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"crucible/container/testenv"

	"github.com/google/nftables"
)

// ip runs iproute2 in a namespace: a second opinion on what is there.
func ip(t testing.TB, ns *os.File, args string) string {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		testenv.Skip(t, "needs iproute2: %v", err)
	}
	cmd := exec.Command("ip", strings.Fields(args)...)
	var out []byte
	err := Do(ns, func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// portrait is all that ip says about a namespace, without what must differ.
func portrait(t testing.TB, ns *os.File) string {
	var b strings.Builder
	for _, args := range []string{"-o -d addr", "-d link", "route show table all", "-6 route show table all", "rule", "-6 rule", "neigh"} {
		fmt.Fprintf(&b, "# ip %s\n%s", args, ip(t, ns, args))
	}
	s := b.String()
	for _, r := range [][2]string{
		{`eth0@if\d+`, "eth0@host"},
		{`link-netnsid \d+`, ""},
		{`lladdr (\S+)( router)? (REACHABLE|DELAY|PROBE|STALE)`, "lladdr $1 ALIVE"},
		{`(hello|tcn|topology_change|gc)_timer +[0-9.]+`, ""},
		{`numtxqueues \d+ numrxqueues \d+`, ""},
		{`hold_timer +[0-9.]+ message_age_timer +[0-9.]+ forward_delay_timer +[0-9.]+`, ""},
		{` nodad`, ""},
		{`state UNKNOWN`, "state UP"}, // an operating state nobody had asked for yet
	} {
		s = regexp.MustCompile(r[0]).ReplaceAllString(s, r[1])
	}
	return s
}

func sysctlIn(t testing.TB, ns *os.File, name, value string) {
	t.Helper()
	err := Do(ns, func() error { return os.WriteFile(sysctlDir+"/"+name, []byte(value), 0) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestSaveRebuild(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	o := newHost(t)
	a, ns := attach(t, named(o, "web"))
	for _, c := range []string{
		"addr add 10.77.200.1/24 dev eth0",
		"addr add fd77::5/64 dev eth0 nodad",
		"link add br7 type bridge ageing_time 12300 mcast_snooping 0",
		"link add in0 mtu 1400 type veth peer name in1",
		"link set in1 master br7 txqueuelen 77",
		"link set br7 up",
		"link set in0 up",
		"link set in1 up",
		"addr add 192.168.44.1/24 dev br7",
		"route add 172.31.0.0/16 via 10.77.0.1 metric 7 table 100",
		"route add 172.30.0.0/16 dev br7 src 192.168.44.1",
		"route add 172.29.0.0/16 nexthop via 10.77.0.1 weight 2 nexthop via 192.168.44.9",
		"route add blackhole 172.28.0.0/16",
		"route add local 172.27.0.0/16 dev lo",
		"route add 172.26.0.0/16 via 172.30.1.1 dev br7 onlink mtu 1200",
		"-6 route add fd99::/64 via fd77::1",
		"rule add from 10.77.0.2 table 100 priority 55",
		"rule add fwmark 0x7/0xff lookup 100",
		"-6 rule add to fd99::/64 lookup 100",
		"neigh add 10.77.9.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
		"neigh add 10.77.9.8 lladdr 02:00:00:00:00:08 dev eth0 nud reachable",
	} {
		ip(t, ns, c)
	}
	for name, value := range map[string]string{
		"ipv4/ip_unprivileged_port_start": "80",
		"ipv4/tcp_keepalive_time":         "100",
		"ipv4/conf/eth0/rp_filter":        "2",
		"ipv4/conf/br7/arp_announce":      "1",
		"ipv6/conf/br7/disable_ipv6":      "1",
		"ipv4/tcp_retries1":               "4", // not one that is read unasked
	} {
		sysctlIn(t, ns, name, value)
	}
	// MAC of the pair and the bridge are random; the portrait holds them.
	before := portrait(t, ns)
	saved, err := Save(ns, "net.ipv4.tcp_retries1", "kernel.shmmax")
	if err != nil {
		t.Fatal(err)
	}
	if saved.Address != a.Address || saved.Gateway != a.Gateway || len(saved.Warnings) > 0 {
		t.Errorf("%s by %s, %v", saved.Address, saved.Gateway, saved.Warnings)
	}
	saved = throughJSON(t, saved)
	if err := a.Detach(ctx); err != nil {
		t.Fatal(err)
	}

	o.NS, o.Like = newNS(t), saved
	b, ns2 := attach(t, named(o, "web"))
	if b.MAC != a.MAC || b.Address != a.Address || b.Index != a.Index {
		t.Errorf("%+v\n%+v", a, b)
	}
	warnings, err := Rebuild(ns2, saved, RebuildOptions{Attachment: b, KeepNeighbours: true})
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	// IPv6 puts a new address's own routes in by a work queue.
	diff := lineDiff(before, portrait(t, ns2))
	for end := deadline(); diff != "" && time.Now().Before(end); {
		diff = lineDiff(before, portrait(t, ns2))
	}
	if diff != "" {
		t.Errorf("differs:\n%s", diff)
	}
	for name, want := range map[string]string{
		"ipv4/ip_unprivileged_port_start": "80",
		"ipv4/tcp_keepalive_time":         "100",
		"ipv4/tcp_retries1":               "4",
		"ipv4/conf/eth0/rp_filter":        "2",
		"ipv4/conf/br7/arp_announce":      "1",
		"ipv6/conf/br7/disable_ipv6":      "1",
	} {
		onThread(func() (bool, error) {
			if err := Enter(ns2); err != nil {
				t.Error(err)
			}
			if got, _ := readSysctl(name, make([]byte, 100)); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
			return false, nil
		})
	}
	listenIn(t, ns2, "tcp4", ":80")
	mustEcho(t, nil, b.Address.Addr().String()+":80")
}

func throughJSON(t *testing.T, s *Saved) *Saved {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes of JSON", len(b))
	var back Saved
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	return &back
}

func lineDiff(a, b string) string {
	var d strings.Builder
	in := func(lines []string, l string) bool {
		for _, x := range lines {
			if x == l {
				return true
			}
		}
		return false
	}
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, l := range la {
		if !in(lb, l) {
			d.WriteString("- " + l + "\n")
		}
	}
	for _, l := range lb {
		if !in(la, l) {
			d.WriteString("+ " + l + "\n")
		}
	}
	return d.String()
}

// A clone lives beside the original, at another address, perhaps in another
// subnet.
func TestRebuildElsewhere(t *testing.T) {
	o := newHost(t)
	a, ns := attach(t, named(o, "web"))
	ip(t, ns, "addr add 10.77.200.1/32 dev eth0")
	ip(t, ns, "route add 10.200.0.0/16 via 10.77.0.1 src 10.77.0.2")
	ip(t, ns, "route add 10.201.0.0/16 via 10.77.0.99")
	ip(t, ns, "rule add from 10.77.0.2 table 100 priority 55")
	saved, err := Save(ns)
	if err != nil {
		t.Fatal(err)
	}
	listenIn(t, ns, "tcp4", ":80")

	t.Run("same subnet", func(t *testing.T) {
		o := o
		o.NS, o.Like, o.NewAddress = newNS(t), saved, true
		b, ns2 := attach(t, named(o, "clone"))
		if b.Address == a.Address || b.MAC == a.MAC {
			t.Errorf("%+v", b)
		}
		warnings, err := Rebuild(ns2, saved, RebuildOptions{Attachment: b, KeepNeighbours: true, NonlocalBind: true})
		if err != nil || len(warnings) != 1 || warnings[0].Kind != "address" {
			t.Error(warnings, err)
		}
		routes := ip(t, ns2, "route")
		for _, want := range []string{"10.200.0.0/16 via 10.77.0.1 dev eth0 src " + b.Address.Addr().String(), "default via 10.77.0.1", "10.201.0.0/16 via 10.77.0.99"} {
			if !strings.Contains(routes, want) {
				t.Errorf("no %q in:\n%s", want, routes)
			}
		}
		listenIn(t, ns2, "tcp4", ":80")
		listenIn(t, ns2, "tcp4", a.Address.Addr().String()+":81") // ip_nonlocal_bind
		mustEcho(t, nil, a.Address.Addr().String()+":80")
		mustEcho(t, nil, b.Address.Addr().String()+":80")
		mustEcho(t, ns, b.Address.Addr().String()+":80")
	})
	t.Run("other subnet", func(t *testing.T) {
		o := newHost(t) // another root has another bridge
		o.NS, o.Like, o.NewAddress = newNS(t), saved, true
		b, ns2 := attach(t, named(o, "clone"))
		if saved.Address.Contains(b.Address.Addr()) {
			t.Fatalf("%s is no other subnet", b.Address)
		}
		warnings, err := Rebuild(ns2, saved, RebuildOptions{Attachment: b})
		if err != nil || len(warnings) != 2 {
			t.Error(warnings, err)
		}
		routes := ip(t, ns2, "route")
		for _, want := range []string{"default via " + b.Gateway.String(), "10.200.0.0/16 via " + b.Gateway.String()} {
			if !strings.Contains(routes, want) {
				t.Errorf("no %q in:\n%s", want, routes)
			}
		}
		if strings.Contains(routes, "10.77.") || !strings.Contains(ip(t, ns2, "rule"), "from "+b.Address.Addr().String()) {
			t.Errorf("the old subnet is left:\n%s", routes)
		}
		listenIn(t, ns2, "tcp4", ":80")
		mustEcho(t, nil, b.Address.Addr().String()+":80")
		mustEcho(t, ns, b.Address.Addr().String()+":80") // from bridge to bridge
	})
}

func TestSaveWarnsAndRefuses(t *testing.T) {
	ns := newNS(t)
	saved, err := Save(ns)
	if err != nil || len(saved.Links) != 1 || len(saved.Warnings) != 0 {
		t.Fatalf("an empty namespace: %+v, %v", saved, err)
	}
	if _, err := Rebuild(newNS(t), throughJSON(t, saved), RebuildOptions{}); err != nil {
		t.Fatal(err)
	}
	err = Do(ns, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.AddTable(&nftables.Table{Name: "mine", Family: nftables.TableFamilyINet})
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	if saved, err = Save(ns); err != nil || len(saved.Warnings) != 1 || saved.Warnings[0].Kind != "nftables" || saved.Warnings[0].Object != "mine" {
		t.Errorf("%+v, %v", saved.Warnings, err)
	}
	ip(t, ns, "link add gone type bridge")
	ip(t, ns, "link add link gone name m0 type macvlan")
	var unsupported *UnsupportedLink
	if _, err := Save(ns); !errors.As(err, &unsupported) || unsupported.Kind != "macvlan" {
		t.Errorf("macvlan: %v", err)
	}
}

// A fresh namespace of another host may have a link where ours was.
func TestIndexTaken(t *testing.T) {
	ns := newNS(t)
	ip(t, ns, "link add br7 index 5 type bridge")
	saved, err := Save(ns)
	if err != nil {
		t.Fatal(err)
	}
	other := newNS(t)
	ip(t, other, "link add br8 index 5 type bridge")
	var taken *IndexTaken
	if _, err := Rebuild(other, saved, RebuildOptions{}); !errors.As(err, &taken) || taken.By != "br8" {
		t.Error(err)
	}
	o := newHost(t)
	ip(t, other, fmt.Sprintf("link add br9 index %d type bridge", containerIndex))
	o.NS = other
	if _, err := Attach(ctx, named(o, "web")); !errors.As(err, &taken) || taken.By != "br9" {
		t.Error(err)
	}
}

func TestSysctlFile(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.tcp_retries1":       "ipv4/tcp_retries1",
		"net/ipv4/conf/a.b/rp_filter": "ipv4/conf/a.b/rp_filter",
		"kernel.shmmax":               "",
		"net/../kernel/shmmax":        "",
		"net.":                        "",
	} {
		got, ok := sysctlFile(name)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
	}
}

func BenchmarkSave(b *testing.B) {
	o := newHost(b)
	_, ns := attach(b, named(o, "web"))
	for b.Loop() {
		if _, err := Save(ns); err != nil {
			b.Fatal(err)
		}
	}
}
