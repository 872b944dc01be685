package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"crucible/container/testenv"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// newWorld is a machine next to the host: 192.0.2.9, which knows no way to the
// containers' subnet. The host is 192.0.2.1.
func newWorld(t *testing.T) *os.File {
	t.Helper()
	world := newNS(t)
	h := hostSocket(t)
	if err := h.do(newVeth(vethEnd{Name: "cru3world"}, vethEnd{Name: "eth0", Index: 0, NS: world})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.do(deleteLink("cru3world")) })
	l, _, _ := h.link("cru3world")
	if err := h.do(setLinkUp(l.Index), newAddress(l.Index, netip.MustParsePrefix("192.0.2.1/24"), create)); err != nil {
		t.Fatal(err)
	}
	w, err := dialIn(world, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	l, _, _ = w.link("eth0")
	if err := w.do(setLinkUp(l.Index), newAddress(l.Index, netip.MustParsePrefix("192.0.2.9/24"), create)); err != nil {
		t.Fatal(err)
	}
	return world
}

func port(t *testing.T, s string) Port {
	t.Helper()
	p, err := ParsePublish(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPublish(t *testing.T) {
	testenv.Root(t)
	testenv.LeakCheck(t)
	o := newHost(t)
	world := newWorld(t)
	o.Config.Publish = []Port{port(t, "8080:80"), port(t, "127.0.0.1:8081:80"), port(t, "5353:53/udp")}
	web, ns := attach(t, named(o, "web"))
	listenIn(t, ns, "tcp4", ":80")
	o.Config.Publish = nil
	_, ns2 := attach(t, named(o, "neighbour"))

	mustEcho(t, nil, "127.0.0.1:8080")
	mustEcho(t, nil, "127.0.0.1:8081")
	mustEcho(t, nil, "192.0.2.1:8080")
	mustEcho(t, world, "192.0.2.1:8080")
	mustEcho(t, ns2, "192.0.2.1:8080")
	mustEcho(t, ns2, "10.77.0.1:8080")
	mustEcho(t, ns, "10.77.0.1:8080") // a container, by the host, itself
	if c, err := dialWithin(silence, world, "192.0.2.1:8081"); err == nil {
		c.Close()
		t.Error("a port published at 127.0.0.1 is reachable from outside")
	}
	mustEchoUDP(t, ns, world, "192.0.2.1:5353")
	mustEchoUDP(t, ns, nil, "127.0.0.1:5353")

	// Masquerade: the world does not know the containers' subnet.
	listenIn(t, world, "tcp4", ":99")
	mustEcho(t, ns, "192.0.2.9:99")

	// route_localnet must not let containers reach the host's own 127.0.0.1.
	l := listenIn(t, nil, "tcp4", "127.0.0.1:0")
	_, p, _ := net.SplitHostPort(l.Addr().String())
	c, err := dialLocalhostOfHost(ns, web, p)
	if err == nil {
		c.Close()
		t.Error("a container reached a service on the host's 127.0.0.1")
	}

	// Taken ports.
	var used *PortInUse
	o.NS = newNS(t)
	for want, ports := range map[string]string{
		"container web":         "192.0.2.1:8080:1",
		"a program on the host": "127.0.0.1:" + p + ":1",
	} {
		o.Config.Publish = []Port{port(t, ports)}
		if _, err := Attach(ctx, named(o, "late")); !errors.As(err, &used) || used.By != want {
			t.Errorf("publish %s: %v", ports, err)
		}
	}

	// Once it is gone its ports are.
	if err := web.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	if n := elements(t, o); n != 0 {
		t.Errorf("%d ports are still published", n)
	}
	o.Config.Publish = []Port{port(t, "8080:80")}
	_, ns3 := attach(t, named(o, "next"))
	listenIn(t, ns3, "tcp4", ":80")
	mustEcho(t, world, "192.0.2.1:8080")
}

// dialLocalhostOfHost tries what CVE-2020-8558 was about: a route to 127.0.0.1
// by the gateway.
func dialLocalhostOfHost(ns *os.File, a *Attachment, port string) (c net.Conn, err error) {
	err = Do(ns, func() error {
		for _, k := range []string{"all", "eth0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+k+"/route_localnet", []byte("1"), 0); err != nil {
				return err
			}
		}
		s, err := dial(0)
		if err != nil {
			return err
		}
		defer s.Close()
		// With lo's address goes the local route to 127.0.0.0/8.
		if err := s.do(addressMessage(unix.RTM_DELADDR, 0, 1, netip.MustParsePrefix("127.0.0.1/8"))); err != nil {
			return err
		}
		return s.do(routeTo(a.Index, netip.MustParsePrefix("127.0.0.0/8"), a.Gateway))
	})
	if err != nil {
		return nil, err
	}
	return dialWithin(3*time.Second, ns, "127.0.0.1:"+port)
}

func elements(t *testing.T, o Options) int {
	n := 0
	onHost(t, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		x := nat{Table: tableName(o.ownBridge())}
		a, b := x.maps()
		for _, s := range []*nftables.Set{a, b} {
			e, err := c.GetSetElements(s)
			if err != nil {
				return err
			}
			n += len(e)
		}
		return nil
	})
	return n
}

func mustEchoUDP(t *testing.T, server, client *os.File, address string) {
	t.Helper()
	var pc net.PacketConn
	if err := Do(server, func() (err error) { pc, err = net.ListenPacket("udp4", ":53"); return err }); err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(b[:n], from)
		}
	}()
	var c net.Conn
	if err := Do(client, func() (err error) { c, err = net.Dial("udp4", address); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hi"))
	c.SetReadDeadline(deadline())
	b := make([]byte, 10)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "hi" {
		t.Errorf("udp to %s: %q, %v", address, b[:n], err)
	}
}

// A command that was killed while it made the bridge leaves it down; the next
// one completes it.
func TestHalfMadeBridge(t *testing.T) {
	o := newHost(t)
	h := hostSocket(t)
	if _, err := makeBridge(h, o.ownBridge(), o); err != nil {
		t.Fatal(err)
	}
	a, ns := attach(t, named(o, "web"))
	listenIn(t, ns, "tcp4", ":80")
	// The first port of a bridge gives it its carrier. If the kernel has not
	// noticed, it swallows the host's first ARP request, and the next is a second
	// away.
	if l, _, err := h.link(a.Bridge); err != nil || !l.Operating {
		t.Errorf("the bridge is not ready for the first connection: %+v, %v", l, err)
	}
	mustEcho(t, nil, a.Address.Addr().String()+":80")
	if f, _ := readHost(t, forwardFile); f != "1" {
		t.Errorf("ip_forward %q", f)
	}
}

// Two state roots share a host: the one that turned forwarding on leaves first.
func TestForwardIsInherited(t *testing.T) {
	a := newHost(t)
	first, _ := attach(t, named(a, "web"))
	b := newHost(t)
	second, ns := attach(t, named(b, "web"))
	if first.Bridge == second.Bridge || first.Address == second.Address {
		t.Fatalf("two roots on one bridge: %s %s", first.Bridge, first.Address)
	}
	var notOurs *BridgeNotOurs
	b.OwnBridge, b.NS = first.Bridge, ns
	if _, err := Attach(ctx, named(b, "x")); !errors.As(err, &notOurs) || !strings.Contains(err.Error(), a.Root) {
		t.Errorf("other root's bridge: %v", err)
	}
	for i, x := range []struct {
		a    *Attachment
		want string
	}{{first, "1"}, {second, "0"}} {
		if err := x.a.Detach(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := Sweep(ctx, x.a.Root); err != nil {
			t.Fatal(err)
		}
		if f, _ := readHost(t, forwardFile); f != x.want {
			t.Errorf("after %d left ip_forward is %s", i+1, f)
		}
	}
}

func TestChooseSubnet(t *testing.T) {
	p := netip.MustParsePrefix
	for _, c := range []struct {
		want string // with a "~" it is a wish
		used []string
		got  string // or the error's beginning
	}{
		{"~10.85.0.9/16", nil, "10.85.0.1/16"},
		{"~10.85.0.9/32", nil, "10.85.0.1/16"},
		{"~10.85.0.9/32", []string{"10.85.0.0/16"}, "10.77.0.1/16"},
		{"~10.1.2.3/24", nil, "10.1.2.1/24"},
		{"~10.1.2.3/24", []string{"10.1.0.0/16"}, "10.77.0.1/16"},
		{"~10.1.2.3/32", nil, "10.77.0.1/16"},
		{"", nil, "10.77.0.1/16"},
		{"", []string{"192.0.2.0/24"}, "10.77.0.1/16"},
		{"", []string{"10.77.4.0/24"}, "10.78.0.1/16"},
		{"", []string{"10.0.0.0/8"}, "172.28.0.1/16"},
		{"", []string{"10.0.0.0/8", "172.16.0.0/12"}, "192.168.222.1/24"},
		{"", []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}, "subnet: every"},
		{"10.1.2.0/24", nil, "10.1.2.1/24"},
		{"10.1.2.5/24", nil, "10.1.2.1/24"},
		{"10.1.2.0/24", []string{"10.1.0.0/16"}, "subnet 10.1.2.0/24: overlaps 10.1.0.0/16,"},
		{"10.1.2.0/31", nil, "subnet 10.1.2.0/31: want"},
		{"fd00::/64", nil, "subnet fd00::/64: want"},
	} {
		var want, wish netip.Prefix
		if w, ok := strings.CutPrefix(c.want, "~"); ok {
			wish = p(w)
		} else if c.want != "" {
			want = p(c.want)
		}
		var used []netip.Prefix
		for _, u := range c.used {
			used = append(used, p(u))
		}
		got, err := chooseSubnet(want, wish, rootPool(), used)
		s := got.String()
		if err != nil {
			s = err.Error()
		}
		if !strings.HasPrefix(s, c.got) {
			t.Errorf("%q beside %q: %s, want %s", c.want, c.used, s, c.got)
		}
	}
}

func TestAlias(t *testing.T) {
	for _, a := range []alias{
		{netip.MustParsePrefix("10.77.0.1/16"), true, "/var/lib/crucible"},
		{netip.MustParsePrefix("10.77.0.1/16"), false, "/a path root=/x forward=1"},
	} {
		if got, ok := parseAlias(a.String()); !ok || got != a {
			t.Errorf("%v read back as %v, %v", a, got, ok)
		}
	}
	for _, s := range []string{"", "crucible", "crucible container=web root=/x", "crucible subnet=x forward=0 root=/", "crucible subnet=fd00::/64 forward=0 root=/"} {
		if got, ok := parseAlias(s); ok {
			t.Errorf("%q read as %v", s, got)
		}
	}
}
