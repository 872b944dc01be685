package network

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"crucible/container/testenv"
)

func onBridge(o Options, bridge, name string) Options {
	o.Config.Bridge, o.Name = bridge, name
	return o
}

// A bridge that does not exist is made, and several live beside each other and
// beside the root's own.
func TestNamedBridges(t *testing.T) {
	testenv.LeakCheck(t)
	o := newHost(t)
	world := newWorld(t)
	listenIn(t, world, "tcp4", ":99")
	type box struct {
		bridge, port, address string
		a                     *Attachment
		ns                    *os.File
	}
	boxes := []*box{
		{bridge: "cru3a", port: "8080", address: "10.76.0.2/24"}, {bridge: "cru3b", port: "8081", address: "10.76.1.2/24"},
		{bridge: "", port: "8082", address: "10.77.0.2/16"},
	}
	for _, b := range boxes {
		p := onBridge(o, b.bridge, "web"+b.port)
		p.Config.Publish = []Port{port(t, b.port+":80")}
		b.a, b.ns = attach(t, p)
		if !b.a.Own || b.a.Address.String() != b.address {
			t.Errorf("on %q: %+v, want %s on a bridge of ours", b.bridge, b.a, b.address)
		}
		listenIn(t, b.ns, "tcp4", ":80")
	}
	second, ns := attach(t, onBridge(o, "cru3a", "second"))
	if second.Address.String() != "10.76.0.3/24" {
		t.Errorf("the second on a bridge: %s", second.Address)
	}
	mustEcho(t, ns, "10.76.0.2:80")
	for _, b := range boxes {
		mustEcho(t, b.ns, "192.0.2.9:99") // masquerade
		for _, from := range []string{"127.0.0.1:", "192.0.2.1:"} {
			mustEcho(t, nil, from+b.port)
		}
		mustEcho(t, world, "192.0.2.1:"+b.port)
	}
	// One goes, the others' ports stay.
	if err := boxes[1].a.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := Sweep(ctx, o.Root); err != nil || len(s.Bridges) != 1 || s.Bridges[0] != "cru3b" {
		t.Errorf("swept %+v, %v", s, err)
	}
	for _, b := range []*box{boxes[0], boxes[2]} {
		mustEcho(t, world, "192.0.2.1:"+b.port)
		mustEcho(t, b.ns, "192.0.2.9:99")
	}
	if c, err := dialFrom(nil, "127.0.0.1:8081"); err == nil {
		c.Close()
		t.Error("the port of a container that is gone answers")
	}
}

// Each bridge chooses on by itself: what is chosen on another is no reason to
// give an address out again at once.
func TestNamedBridgesChooseApart(t *testing.T) {
	o := newHost(t)
	keep, _ := attach(t, onBridge(o, "cru3a", "keep"))
	first, _ := attach(t, onBridge(o, "cru3a", "first"))
	attach(t, onBridge(o, "cru3b", "other"))
	if err := first.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	if next, _ := attach(t, onBridge(o, "cru3a", "next")); next.Address.Addr() != first.Address.Addr().Next() {
		t.Errorf("%s, %s, then %s", keep.Address, first.Address, next.Address)
	}
}

// The last two bridges go at the same time: somebody must turn ip_forward off.
func TestNamedBridgesGoTogether(t *testing.T) {
	o := newHost(t)
	for _, bridge := range []string{"cru3a", "cru3b", "cru3c"} {
		a, _ := attach(t, onBridge(o, bridge, "on"+bridge))
		if err := a.Detach(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := Sweep(ctx, o.Root); err != nil || len(s.Bridges) != 3 {
		t.Errorf("swept %+v, %v", s, err)
	}
	if f, _ := readHost(t, forwardFile); f != "0" {
		t.Errorf("ip_forward is %s after the last container left", f)
	}
}

// The first container's address decides on the subnet; without one it is the
// first that nobody on the host has, not even on a link that is down.
func TestNamedBridgeSubnet(t *testing.T) {
	o := newHost(t)
	h := hostSocket(t)
	if err := h.do(newLink("bridge", "cru3d", 0, 0, MAC{})); err != nil {
		t.Fatal(err)
	}
	defer h.do(deleteLink("cru3d"))
	l, _, _ := h.link("cru3d")
	if err := h.do(newAddress(l.Index, netip.MustParsePrefix("10.76.0.130/24"), create)); err != nil {
		t.Fatal(err)
	}
	if a, _ := attach(t, onBridge(o, "cru3a", "free")); a.Address.String() != "10.76.1.2/24" {
		t.Errorf("beside 10.76.0.130/24: %s", a.Address)
	}
	p := onBridge(o, "cru3b", "asked")
	p.Config.Address = netip.MustParsePrefix("172.20.5.9/28")
	if a, _ := attach(t, p); a.Address != p.Config.Address || a.Gateway.String() != "172.20.5.1" {
		t.Errorf("asked for %s: %+v", p.Config.Address, a)
	}
	p = onBridge(o, "cru3c", "taken")
	p.NS, p.Config.Address = newNS(t), netip.MustParsePrefix("10.76.0.7/25")
	var none *NoSubnet
	if _, err := Attach(ctx, p); !errors.As(err, &none) || !strings.Contains(err.Error(), "10.76.0.0/24") {
		t.Errorf("in a subnet of the host's: %v", err)
	}
}

// A name that cannot be, or must not be, a bridge of ours.
func TestNamedBridgeRefused(t *testing.T) {
	o := newHost(t)
	o.NS = newNS(t)
	var notOurs *BridgeNotOurs
	if _, err := Attach(ctx, onBridge(o, defaultBridge, "web")); !errors.As(err, &notOurs) {
		t.Errorf("another root's own: %v", err)
	}
	for _, name := range []string{"br%d", "lock"} {
		if _, err := Attach(ctx, onBridge(o, name, "web")); err == nil {
			t.Errorf("bridge %s was made", name)
		}
	}
	// Another root's is somebody else's.
	attach(t, onBridge(o, "cru3a", "web"))
	other := onBridge(newHost(t), "cru3a", "web")
	other.NS = newNS(t)
	var needed *AddressNeeded
	if _, err := Attach(ctx, other); !errors.As(err, &needed) || !strings.Contains(err.Error(), o.Root) {
		t.Errorf("another root's: %v", err)
	}
}

// What is somebody else's stays as it is.
func TestForeignBridgeIsLeftAlone(t *testing.T) {
	o := newHost(t)
	h := hostSocket(t)
	if err := h.do(newLink("bridge", "cru3f", 0, 0, MAC{})); err != nil {
		t.Fatal(err)
	}
	defer h.do(deleteLink("cru3f"))
	p := onBridge(o, "cru3f", "web")
	p.NS, p.Config.Address = newNS(t), netip.MustParsePrefix("192.168.9.7/24")
	p.Config.Publish = []Port{port(t, "8080:80")}
	if _, err := Attach(ctx, p); err == nil || !strings.Contains(err.Error(), "publish") || hintOf(err) == "" {
		t.Errorf("published on a foreign bridge: %v (%s)", err, hintOf(err))
	}
	p.Config.Publish = nil
	a, err := Attach(ctx, withQuiet(p))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := Sweep(ctx, o.Root); err != nil || len(s.Bridges) != 0 {
		t.Errorf("swept %+v, %v", s, err)
	}
	if l, found, err := h.link("cru3f"); err != nil || !found || l.up() || l.Alias != "" {
		t.Errorf("the bridge is %+v, %v, %v", l, found, err)
	}
}

// withQuiet: a port of a bridge that is down never gets to forward.
func withQuiet(o Options) Options { o.Quiet = true; return o }

func hintOf(err error) string {
	var h interface{ Hint() string }
	if !errors.As(err, &h) {
		return ""
	}
	return h.Hint()
}

// An image knows whether the bridge was ours: that one a restore makes again,
// somebody else's it does not.
func TestNamedBridgeInImage(t *testing.T) {
	o := newHost(t)
	o = onBridge(o, "cru3a", "web")
	a, ns := attach(t, o)
	saved, err := Save(ns)
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	awaitGone(t, a.HostLink)
	if s, err := Sweep(ctx, o.Root); err != nil || len(s.Bridges) != 1 {
		t.Fatalf("swept %+v, %v", s, err)
	}
	image := saved.Proto(a).Attachment
	o.NS, o.Like, o.Config = newNS(t), saved, Config{}
	if o.Config, err = ConfigFrom(image); err != nil {
		t.Fatal(err)
	}
	b, _ := attach(t, o)
	if b.Bridge != "cru3a" || !b.Own || b.Address != a.Address || b.MAC != a.MAC {
		t.Errorf("restored as %+v, was %+v", b, a)
	}
	a.Own, a.Bridge = false, "cru3z"
	if o.Config, err = ConfigFrom(saved.Proto(a).Attachment); err != nil {
		t.Fatal(err)
	}
	o.Name = "other"
	var notFound *BridgeNotFound
	if _, err := Attach(ctx, o); !errors.As(err, &notFound) {
		t.Errorf("somebody else's bridge, which is gone: %v", err)
	}
}
