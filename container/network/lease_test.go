package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func testLeases(t *testing.T) *leases {
	t.Helper()
	l, err := lockLeases(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.unlock)
	return l
}

func TestChoose(t *testing.T) {
	l := testLeases(t)
	gateway := netip.MustParsePrefix("10.9.0.1/29")
	living := map[string]bool{}
	alive := func(e lease) bool { return living[e.Name] }
	choose := func(name, want string) {
		t.Helper()
		living[name] = true
		e, err := l.choose(lease{Name: name, Bridge: "br"}, gateway, alive)
		got := e.Address.String()
		var full *NoFreeAddress
		if errors.As(err, &full) {
			got = "full"
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s got %s, want %s", name, got, want)
		}
	}
	choose("a", "10.9.0.2")
	choose("b", "10.9.0.3")
	if err := l.remove(lease{Bridge: "br", Address: netip.MustParseAddr("10.9.0.2")}); err != nil {
		t.Fatal(err)
	}
	choose("c", "10.9.0.4")
	delete(living, "b") // it died, and its lease was left
	choose("d", "10.9.0.5")
	choose("e", "10.9.0.6")
	choose("f", "10.9.0.2") // free
	choose("g", "10.9.0.3") // dead: only when nothing else is left
	choose("h", "full")
	all, err := l.all("")
	if err != nil || len(all) != 5 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestTake(t *testing.T) {
	l := testLeases(t)
	a := netip.MustParseAddr("10.9.0.2")
	alive := true
	is := func(lease) bool { return alive }
	if err := l.take(lease{Name: "a", Bridge: "br", Address: a, Link: "l1", StandIn: "s"}, is); err != nil {
		t.Fatal(err)
	}
	var used *AddressInUse
	if err := l.take(lease{Name: "b", Bridge: "br", Address: a}, is); !errors.As(err, &used) || used.By != "a" {
		t.Errorf("taken from a living container: %v", err)
	}
	if err := l.take(lease{Name: "b", Bridge: "other", Address: a}, is); err != nil {
		t.Errorf("the same address on another bridge: %v", err)
	}
	if err := l.take(lease{Name: "a", Bridge: "br", Address: a, Link: "l2"}, is); err != nil {
		t.Errorf("its own: %v", err)
	}
	if e, err := l.get("br", a); err != nil || e.Link != "l2" || e.StandIn != "s" {
		t.Errorf("%+v, %v", e, err)
	}
	alive = false
	if err := l.take(lease{Name: "b", Bridge: "br", Address: a}, is); err != nil {
		t.Errorf("from a dead one: %v", err)
	}
	// What a command left that was killed while it wrote.
	alive = true
	if err := os.WriteFile(l.path("br", a), []byte(`{"name":"x`), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := l.get("br", a); err != nil || e.Link != "" || e.Address != a {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestLockWaits(t *testing.T) {
	root := t.TempDir()
	l, err := lockLeases(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := lockLeases(short, root); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}
	next := make(chan error)
	go func() {
		l, err := lockLeases(ctx, root)
		if err == nil {
			l.unlock()
		}
		next <- err
	}()
	l.unlock()
	if err := <-next; err != nil {
		t.Error(err)
	}
}

func TestCursorIsForgiving(t *testing.T) {
	l := testLeases(t)
	subnet := netip.MustParsePrefix("10.9.0.0/24")
	for _, s := range []string{"", "x", "\n\n", "192.168.1.1\n"} {
		if err := os.WriteFile(filepath.Join(l.dir, "lock"), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := l.cursor(subnet); got != subnet.Addr() {
			t.Errorf("%q: %s", s, got)
		}
	}
	for _, a := range []string{"10.9.0.200", "10.9.0.3"} { // the shorter over the longer
		if err := l.setCursor(subnet, netip.MustParseAddr(a)); err != nil {
			t.Fatal(err)
		}
		if got := l.cursor(subnet); got.String() != a {
			t.Errorf("%s read back as %s", a, got)
		}
	}
}

func FuzzLease(f *testing.F) {
	f.Add([]byte(`{"name":"web","link":"cru01020304","publish":[{"hostPort":80,"port":80,"protocol":"tcp"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := netip.MustParseAddr("10.9.0.2")
		if e := parseLease(b, "br", a); e.Bridge != "br" || e.Address != a {
			t.Errorf("%+v", e)
		}
	})
}

// The kernel's messages, and the saved ones that come out of an image.
func FuzzMessages(f *testing.F) {
	l, _ := linkMessage(16, 0, 0, 7)
	f.Add(l.Serialize()[16:])
	f.Add(newAddress(7, netip.MustParsePrefix("10.9.0.2/24"), 0).Serialize()[16:])
	f.Add(defaultRoute(7, netip.MustParseAddr("10.9.0.1")).Serialize()[16:])
	f.Add(newVeth(vethEnd{Name: "a"}, vethEnd{Name: "b"}).Serialize()[16:])
	f.Fuzz(func(t *testing.T, b []byte) {
		parseLink(b)
		parseAlias(string(b))
		for _, k := range []struct {
			header   int
			describe func(parsed) string
			keep     func(parsed) bool
		}{
			{addressHeader, describeAddress, keepAddress},
			{routeHeader, describeRoute, func(p parsed) bool { clearNexthopState(&p); return true }},
			{ruleHeader, describeRule, func(parsed) bool { return true }},
			{neighbourHeaderSize, describeNeighbour, keepNeighbour},
		} {
			p, err := parse(b, k.header)
			if err != nil {
				continue
			}
			k.describe(p)
			k.keep(p)
			q, err := parse(p.bytes(), k.header)
			if err != nil || fmt.Sprint(q) != fmt.Sprint(p) {
				t.Errorf("%x: %v, then %v, %v", b, p, q, err)
			}
		}
		if len(b) > 4 {
			binary.NativeEndian.PutUint32(b, uint32(len(b)))
		}
	})
}
