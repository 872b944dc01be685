package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"crucible/container/testenv"

	"golang.org/x/sys/unix"
)

var ctx = context.Background()

func named(o Options, name string) Options { o.Name = name; return o }

func TestAttach(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	o := newHost(t)
	a, ns := attach(t, named(o, "web"))
	b, ns2 := attach(t, named(o, "other"))
	if a.Address.String() != "10.77.0.2/16" || b.Address.String() != "10.77.0.3/16" {
		t.Errorf("addresses %s, %s", a.Address, b.Address)
	}
	if a.Index != containerIndex || a.Link != "eth0" || len(a.HostLink) > 15 {
		t.Errorf("%+v", a)
	}
	if len(a.Changed) != 1 || len(b.Changed) != 0 {
		t.Errorf("changed: %q, %q", a.Changed, b.Changed)
	}
	listenIn(t, ns, "tcp4", ":80")
	mustEcho(t, nil, a.Address.Addr().String()+":80")
	mustEcho(t, ns2, a.Address.Addr().String()+":80")

	l := hostSocket(t)
	got, _, err := l.link(a.HostLink)
	if err != nil || got.Conf6 != nil && got.Master == 0 {
		t.Errorf("host end %+v, %v", got, err)
	}
}

func TestAttachNoneAndHost(t *testing.T) {
	testenv.Root(t)
	for _, m := range []Mode{ModeNone, ModeHost, ""} {
		a, err := Attach(ctx, Options{Root: t.TempDir(), Name: "x", Config: Config{Mode: m}})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []func(context.Context) error{a.Activate, a.Detach} {
			if err := f(ctx); err != nil {
				t.Errorf("mode %q: %v", m, err)
			}
		}
	}
	ns := newNS(t)
	listenIn(t, ns, "tcp4", "127.0.0.1:80")
	mustEcho(t, ns, "127.0.0.1:80")
}

// A quiet container neither hears nor is heard, and its kernel answers no RST.
func TestQuiet(t *testing.T) {
	o := newHost(t)
	o = named(o, "web")
	o.Quiet = true
	a, ns := attach(t, o)
	listenIn(t, ns, "tcp4", ":80")
	if c, err := dialWithin(silence, nil, a.Address.Addr().String()+":80"); err == nil {
		c.Close()
		t.Fatal("a quiet container answered")
	} else if errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("a quiet container refused: %v", err)
	}
	if err := a.Activate(ctx); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, nil, a.Address.Addr().String()+":80")
}

func TestAddresses(t *testing.T) {
	o := newHost(t)
	o.Subnet = netip.MustParsePrefix("10.99.0.0/29") // .1 is the bridge, .2 to .6 are ours
	want := func(name, ip string) *Attachment {
		t.Helper()
		a, _ := attach(t, named(o, name))
		if a.Address.Addr().String() != ip {
			t.Errorf("%s got %s, want %s", name, a.Address, ip)
		}
		return a
	}
	a := want("a", "10.99.0.2")
	want("b", "10.99.0.3")
	if err := a.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	want("c", "10.99.0.4") // not the one that has just become free
	want("d", "10.99.0.5")
	want("e", "10.99.0.6")
	want("f", "10.99.0.2")
	o.NS = newNS(t)
	var none *NoFreeAddress
	if _, err := Attach(ctx, named(o, "g")); !errors.As(err, &none) {
		t.Errorf("full subnet: %v", err)
	}
	var used *AddressInUse
	o.Config.Address = netip.MustParsePrefix("10.99.0.4/32")
	if _, err := Attach(ctx, named(o, "g")); !errors.As(err, &used) || used.By != "c" {
		t.Errorf("used address: %v", err)
	}
	for _, bad := range []string{"10.99.0.0/29", "10.99.0.7/29", "10.99.0.1/29", "10.98.0.2/29"} {
		var outside *AddressOutside
		o.Config.Address = netip.MustParsePrefix(bad)
		if _, err := Attach(ctx, named(o, "g")); !errors.As(err, &outside) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// A container whose processes and monitor were killed leaves its lease behind,
// but the kernel takes its link away.
func TestDeadLease(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	o := newHost(t)
	o.Subnet = netip.MustParsePrefix("10.99.0.0/30") // room for one
	ns, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	o.NS = ns
	dead, err := Attach(ctx, named(o, "dead"))
	if err != nil {
		t.Fatal(err)
	}
	o.NS = newNS(t)
	if _, err := Attach(ctx, named(o, "next")); err == nil {
		t.Fatal("two containers at one address")
	}
	ns.Close()
	awaitGone(t, dead.HostLink)
	a, _ := attach(t, named(o, "next"))
	if a.Address != dead.Address {
		t.Errorf("got %s", a.Address)
	}
	if err := dead.Detach(ctx); err != nil { // late: must not take the new one's lease
		t.Fatal(err)
	}
	all, err := lockLeases(ctx, o.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer all.unlock()
	if e, err := all.get(a.Bridge, a.Address.Addr()); err != nil || e.Name != "next" {
		t.Errorf("lease %+v, %v", e, err)
	}
}

// awaitGone waits for the kernel to bury a link.
func awaitGone(t testing.TB, name string) {
	t.Helper()
	h := hostSocket(t)
	for end := deadline(); h.linkExists(name); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("link %s is still there", name)
		}
	}
}

func TestDetachFromJSON(t *testing.T) {
	o := newHost(t)
	a, _ := attach(t, named(o, "web"))
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
	var c Attachment
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Detach(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Sweep(ctx, o.Root)
	if err != nil || len(s.Bridges) != 1 || len(s.Links) != 1 {
		t.Errorf("swept %+v, %v", s, err)
	}
	if b, _ := readHost(t, forwardFile); b != "0" {
		t.Errorf("ip_forward is %q after the last container left", b)
	}
	if err := c.Detach(ctx); err != nil {
		t.Fatal(err)
	}
}

func readHost(t testing.TB, path string) (s string, err error) {
	t.Helper()
	err = Do(nil, func() error {
		b, err := os.ReadFile(path)
		s = strings.TrimSpace(string(b))
		return err
	})
	return s, err
}

func TestParallelAttach(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	o := newHost(t)
	const n = 50
	got := make([]*Attachment, n)
	var wg sync.WaitGroup
	spaces := make([]*os.File, n)
	for i := range n {
		spaces[i] = newNS(t)
	}
	start := time.Now()
	for i := range n {
		wg.Go(func() {
			o := named(o, fmt.Sprint("c", i))
			o.NS = spaces[i]
			a, err := Attach(ctx, o)
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = a
		})
	}
	wg.Wait()
	t.Logf("%d containers in %s", n, time.Since(start))
	seen := map[netip.Addr]string{}
	for _, a := range got {
		if a == nil {
			continue
		}
		if by, ok := seen[a.Address.Addr()]; ok {
			t.Errorf("%s given to %s and %s", a.Address, by, a.Name)
		}
		seen[a.Address.Addr()] = a.Name
		if err := a.Detach(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestForeignBridge(t *testing.T) {
	o := newHost(t)
	h := hostSocket(t)
	var notFound *BridgeNotFound
	var needed *AddressNeeded
	var notOurs *BridgeNotOurs
	o.NS = newNS(t)
	o.Config.Bridge, o.Config.Foreign = "cru3br", true
	if _, err := Attach(ctx, named(o, "web")); !errors.As(err, &notFound) {
		t.Errorf("no bridge: %v", err)
	}
	if err := h.do(newLink("bridge", "cru3br", 0, 0, MAC{})); err != nil {
		t.Fatal(err)
	}
	defer h.do(deleteLink("cru3br"))
	l, _, err := h.link("cru3br")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.do(setLinkUp(l.Index), newAddress(l.Index, netip.MustParsePrefix("192.168.9.1/24"), create)); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(ctx, named(o, "web")); !errors.As(err, &needed) {
		t.Errorf("no address: %v", err)
	}
	own := o
	own.Config.Bridge, own.OwnBridge = "", "cru3br"
	if _, err := Attach(ctx, named(own, "web")); !errors.As(err, &notOurs) {
		t.Errorf("foreign bridge as own: %v", err)
	}
	o.Config.Bridge = "lo"
	if _, err := Attach(ctx, named(o, "web")); !errors.As(err, &notOurs) {
		t.Errorf("lo as bridge: %v", err)
	}
	o.Config.Bridge = "cru3br"
	o.Config.Address = netip.MustParsePrefix("192.168.9.7/32")
	a, ns := attach(t, named(o, "web"))
	if a.Address.String() != "192.168.9.7/24" || a.Gateway.String() != "192.168.9.1" {
		t.Errorf("%+v", a)
	}
	listenIn(t, ns, "tcp4", ":80")
	mustEcho(t, nil, "192.168.9.7:80")
}

func BenchmarkAttach(b *testing.B) {
	o := newHost(b)
	keep, _ := attach(b, named(o, "keep")) // so that the bridge is there
	_ = keep
	var detach time.Duration
	for i := range b.N {
		b.StopTimer()
		ns, err := NewNamespace()
		if err != nil {
			b.Fatal(err)
		}
		o := named(o, fmt.Sprint("c", i))
		o.NS = ns
		b.StartTimer()
		a, err := Attach(ctx, o)
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if err := a.Detach(ctx); err != nil {
			b.Fatal(err)
		}
		detach += time.Since(start)
		ns.Close()
		awaitGone(b, a.HostLink)
		b.StartTimer()
	}
	b.ReportMetric(float64(detach.Microseconds())/float64(b.N), "detach-us/op")
}

// The check for leaks knows a state root's bridge and table by this name.
func TestBridgeName(t *testing.T) {
	for _, root := range []string{"/x", "/x/", t.TempDir()} {
		if own, known := (Options{Root: root}).ownBridge(), testenv.Bridge(root); own != known {
			t.Errorf("the bridge of %s is %s, and known as %s", root, own, known)
		}
	}
}

// patience is for what will come, silence for what will not.
const patience, silence = 30 * time.Second, time.Second

func deadline() time.Time { return time.Now().Add(patience) }

// The host is where the caller is, not where the process was started: a monitor
// that was started again from inside the container's namespace calls like this.
func TestHostIsWhereTheCallerIs(t *testing.T) {
	testenv.Root(t)
	host, ns := newNS(t), newNS(t)
	o := Options{Root: t.TempDir(), Name: "web", NS: ns, Config: Config{Mode: ModeBridge, Publish: []Port{port(t, "8080:80")}}}
	var a *Attachment
	var p *Parking
	for i, step := range []func() error{
		func() (err error) { a, err = Attach(ctx, o); return err },
		func() (err error) { p, err = a.Park(ctx); return err },
		func() error { return p.Start(ctx) },
		func() (err error) { _, err = p.Deliver(ctx, a); return err },
		func() error { return a.Activate(ctx) },
		func() error {
			listenIn(t, ns, "tcp4", ":80")
			mustEcho(t, host, "127.0.0.1:8080")
			return nil
		},
		func() error { p.Close(); return a.Detach(ctx) },
		func() error {
			s, err := Sweep(ctx, o.Root)
			if err == nil && len(s.Bridges) != 1 {
				err = fmt.Errorf("swept %+v", s)
			}
			return err
		},
	} {
		if err := Do(host, step); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if hostSocket(t).linkExists(o.ownBridge()) {
			t.Fatalf("step %d worked in the process's own namespace", i)
		}
	}
}

// A container that is started again has its address still, unless somebody else
// has it by now or the bridge is of another subnet.
func TestPrefer(t *testing.T) {
	o := newHost(t)
	keep, _ := attach(t, named(o, "keep"))
	a, _ := attach(t, named(o, "web"))
	if err := a.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	o.Prefer = a.Address
	b, _ := attach(t, named(o, "web"))
	if b.Address != a.Address || b.MAC != a.MAC {
		t.Errorf("was %s (%s), is %s (%s)", a.Address, a.MAC, b.Address, b.MAC)
	}
	for _, taken := range []string{b.Address.String(), keep.Gateway.String() + "/16", "192.0.2.7/24"} {
		o.Prefer = netip.MustParsePrefix(taken)
		if c, _ := attach(t, named(o, "other"+taken[:1])); c.Address.Addr() == o.Prefer.Addr() || !keep.Address.Masked().Contains(c.Address.Addr()) {
			t.Errorf("preferred %s, which is not to be had: %s", taken, c.Address)
		}
	}
	// It was the first: the bridge is made for its address again.
	p := onBridge(o, "cru3a", "first")
	p.Prefer = netip.MustParsePrefix("10.76.9.3/24")
	if c, _ := attach(t, p); c.Address != p.Prefer {
		t.Errorf("preferred %s: %s", p.Prefer, c.Address)
	}
}
