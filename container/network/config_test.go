package network

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestParseNet(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Config
		bad  string // part of the error
	}{
		{"none", Config{Mode: ModeNone}, ""},
		{"host", Config{Mode: ModeHost}, ""},
		{"bridge", Config{Mode: ModeBridge}, ""},
		{"bridge=br0", Config{Mode: ModeBridge, Bridge: "br0"}, ""},
		{"", Config{}, "want none, host"},
		{"bridge=", Config{}, "want none, host"},
		{"host=br0", Config{}, "want none, host"},
		{"ipvlan", Config{}, "unknown"},
		{"bridge=a/b", Config{}, "link name"},
		{"bridge=0123456789abcdef", Config{}, "1 to 15 bytes"},
		{"bridge=..", Config{}, "link name"},
	} {
		got, err := ParseNet(c.in)
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%q: %v", c.in, err)
			}
			continue
		}
		if err != nil || got.Mode != c.want.Mode || got.Bridge != c.want.Bridge {
			t.Errorf("%q: %+v, %v", c.in, got, err)
		}
	}
}

func TestParsePublish(t *testing.T) {
	for _, c := range []struct{ in, want, bad string }{
		{"8080:80", "8080:80/tcp", ""},
		{"8080:80/tcp", "8080:80/tcp", ""},
		{"53:53/udp", "53:53/udp", ""},
		{"127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp", ""},
		{"0.0.0.0:8080:80", "8080:80/tcp", ""},
		{"80", "", "two or three parts"},
		{"1:2:3:4", "", "two or three parts"},
		{"0:80", "", "host port: not a number from 1 to 65535"},
		{"80:65536", "", "container port: not a number"},
		{"+80:80", "", "not a number"},
		{"80:80/sctp", "", "neither tcp nor udp"},
		{"80:80/", "", "neither tcp nor udp"},
		{"[::1]:80:80", "", "two or three parts"},
		{"localhost:80:80", "", "not IPv4"},
	} {
		got, err := ParsePublish(c.in)
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%q: %+v, %v", c.in, got, err)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("%q: %s, %v", c.in, got, err)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.5/24": "10.0.0.5/24", "10.0.0.5": "10.0.0.5/32",
		"fd00::1/64": "", "10.0.0": "", "": "", "10.0.0.5/33": "", "10.0.0.5/": "",
	} {
		got, err := ParseAddress(in)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
}

func TestValidate(t *testing.T) {
	p := func(s string) Port {
		x, err := ParsePublish(s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, c := range []struct {
		c   Config
		bad string
	}{
		{Config{}, ""},
		{Config{Mode: ModeBridge, Publish: []Port{p("80:1"), p("80:1/udp"), p("81:1")}}, ""},
		{Config{Mode: ModeBridge, Publish: []Port{p("127.0.0.1:80:1"), p("127.0.0.2:80:1")}}, ""},
		{Config{Mode: ModeBridge, Publish: []Port{p("80:1"), p("127.0.0.1:80:2")}}, "already used by another --publish"},
		{Config{Publish: []Port{p("80:1")}}, "need --net bridge"},
		{Config{Mode: ModeHost, Address: netip.MustParsePrefix("10.0.0.1/8")}, "need --net bridge"},
		{Config{Mode: ModeBridge, Address: netip.MustParsePrefix("fd00::1/8")}, "IPv4"},
		{Config{Mode: ModeBridge, MAC: MAC{1}}, "group"},
	} {
		err := c.c.Validate()
		if (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%+v: %v, want %q", c.c, err, c.bad)
		}
	}
}

func TestConfigJSON(t *testing.T) {
	c := Config{Mode: ModeBridge, Address: netip.MustParsePrefix("10.77.0.5/16"), MAC: macFor(netip.MustParseAddr("10.77.0.5"))}
	b, err := json.Marshal(c)
	if err != nil || string(b) != `{"mode":"bridge","address":"10.77.0.5/16","mac":"0e:c7:0a:4d:00:05"}` {
		t.Errorf("%s, %v", b, err)
	}
	var back Config
	if err := json.Unmarshal(b, &back); err != nil || back.MAC != c.MAC || back.Address != c.Address {
		t.Errorf("%+v, %v", back, err)
	}
	for _, bad := range []string{"", "0e:c7:0a:4d:00", "0e:c7:0a:4d:00:5", "0e:c7:0a:4d:00:+5", "0e:c7:0a:4d:00:05:06"} {
		if err := back.MAC.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("MAC %q was read", bad)
		}
	}
}

// Whoever shows one of these errors to a user shows a way out with it.
func TestErrorsHaveRemedies(t *testing.T) {
	a, p := netip.MustParseAddr("10.77.0.5"), netip.MustParsePrefix("10.77.0.0/16")
	for _, err := range []interface {
		error
		Hint() string
	}{
		&AddressInUse{a, "web"}, &NoFreeAddress{p}, &AddressOutside{a, "br0", p}, &AddressNeeded{"br0", ""}, &PublishRefused{"br0", "/other"},
		&PortInUse{Port{HostPort: 80, Port: 80, Protocol: "tcp"}, "container web"}, &BridgeNotFound{"br0"},
		&BridgeNotOurs{"br0", "/other", "bridge"}, &BridgeNotOurs{"br0", "", "bridge"}, &BridgeNotOurs{"lo", "", ""}, &BridgeNotOurs{"d0", "", "dummy"},
		&NoSubnet{}, &NoSubnet{p, p}, &NoNAT{errors.New("no")}, &UnsupportedLink{"m0", "macvlan"}, &IndexTaken{"eth0", 32, "tunl0"},
	} {
		s := err.Error() + "\nhint: " + err.Hint()
		if strings.Count(s, ": ") < 2 || len(err.Hint()) < 20 || len(s) > 250 || strings.Contains(s, "%!") {
			t.Errorf("%T: %s", err, s)
		}
		t.Log(s)
	}
}

func FuzzParsePublish(f *testing.F) {
	for _, s := range []string{"8080:80", "127.0.0.1:1:2/udp", "::", "1:2/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePublish(s)
		if err != nil {
			return
		}
		if again, err := ParsePublish(p.String()); err != nil || again != p {
			t.Errorf("%q is %+v, read again %+v, %v", s, p, again, err)
		}
	})
}

func FuzzParseNet(f *testing.F) {
	f.Add("bridge=br0")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseNet(s); err == nil && c.Validate() != nil {
			t.Errorf("%q: read, but not valid", s)
		}
		ParseAddress(s)
	})
}

func FuzzMAC(f *testing.F) {
	f.Add("0e:c7:0a:4d:00:05")
	f.Fuzz(func(t *testing.T, s string) {
		var m MAC
		if m.UnmarshalText([]byte(s)) == nil && m.String() != strings.ToLower(s) {
			t.Errorf("%q reads as %s", s, m)
		}
	})
}
