package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Mode is how a container meets the network.
type Mode string

const (
	ModeNone   Mode = "none"   // a namespace with a loopback and nothing else
	ModeHost   Mode = "host"   // the host's own namespace
	ModeBridge Mode = "bridge" // a namespace with an eth0 on a bridge
)

// Config is what the user asked for. The zero Config is mode "none".
type Config struct {
	Mode    Mode         `json:"mode"`
	Bridge  string       `json:"bridge,omitempty"`  // empty: the state root's own; one that is not there is made
	Foreign bool         `json:"foreign,omitempty"` // Bridge was somebody else's: crucible does not make it
	Address netip.Prefix `json:"address,omitzero"`  // zero: the next free one; /32: of the bridge's length
	Gateway netip.Addr   `json:"gateway,omitzero"`  // zero: the bridge's own address
	MAC     MAC          `json:"mac,omitzero"`      // zero: made from the address
	Publish []Port       `json:"publish,omitempty"` // host ports that lead to the container
}

// Validate checks what can be checked without a kernel.
func (c Config) Validate() error {
	switch c.Mode {
	case ModeNone, ModeHost, "":
		if c.Address.IsValid() || c.Bridge != "" || len(c.Publish) > 0 {
			return fmt.Errorf("network mode %s: an address, a bridge or published ports need --net bridge", c.mode())
		}
		return nil
	case ModeBridge:
	default:
		return fmt.Errorf("network mode %q: unknown; there are none, host and bridge", c.Mode)
	}
	if c.Bridge != "" {
		if err := validLinkName(c.Bridge); err != nil {
			return err
		}
	}
	if c.Address.IsValid() && !c.Address.Addr().Is4() {
		return fmt.Errorf("address %s: a container's address is IPv4", c.Address)
	}
	if c.MAC[0]&1 != 0 {
		return fmt.Errorf("MAC %s: is a group's address, not one link's", c.MAC)
	}
	for i, p := range c.Publish {
		if err := p.Validate(); err != nil {
			return err
		}
		for _, q := range c.Publish[:i] {
			if p.overlaps(q) {
				return &PortInUse{Port: p, By: "another --publish of the same container"}
			}
		}
	}
	return nil
}

func (c Config) mode() Mode {
	if c.Mode == "" {
		return ModeNone
	}
	return c.Mode
}

// ParseNet reads the value of --net: none, host, bridge or bridge=NAME.
func ParseNet(s string) (Config, error) {
	mode, name, named := strings.Cut(s, "=")
	c := Config{Mode: Mode(mode), Bridge: name}
	if named && (c.Mode != ModeBridge || name == "") {
		return Config{}, fmt.Errorf("network %q: want none, host, bridge or bridge=NAME", s)
	}
	if mode == "" {
		return Config{}, fmt.Errorf("network %q: want none, host, bridge or bridge=NAME", s)
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// ParseAddress reads the value of --ip: 10.77.0.5/16, or 10.77.0.5 for the
// bridge's own prefix length.
func ParseAddress(s string) (netip.Prefix, error) {
	text := s
	if !strings.Contains(s, "/") {
		text += "/32"
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("address %q: want an IPv4 address like 10.77.0.5/16", s)
	}
	return p, nil
}

// A Port is one published port: HostIP:HostPort on the host leads to Port in
// the container. A zero HostIP is every address of the host.
type Port struct {
	HostIP   netip.Addr `json:"hostIP,omitzero"`
	HostPort uint16     `json:"hostPort"`
	Port     uint16     `json:"port"`
	Protocol string     `json:"protocol"` // tcp or udp
}

// ParsePublish reads the value of --publish: [HOSTIP:]HOSTPORT:PORT[/tcp|/udp].
func ParsePublish(s string) (Port, error) {
	bad := func(why string) (Port, error) {
		return Port{}, fmt.Errorf("publish %q: %s; want [HOSTIP:]HOSTPORT:PORT[/tcp|/udp], for example 8080:80", s, why)
	}
	p := Port{Protocol: "tcp"}
	ports, proto, hasProto := strings.Cut(s, "/")
	if hasProto {
		p.Protocol = proto
	}
	parts := strings.Split(ports, ":")
	switch len(parts) {
	case 2:
	case 3:
		ip, err := netip.ParseAddr(parts[0])
		if err != nil || !ip.Is4() {
			return bad("the host address is not IPv4")
		}
		if !ip.IsUnspecified() {
			p.HostIP = ip
		}
		parts = parts[1:]
	default:
		return bad("not two or three parts")
	}
	var err error
	if p.HostPort, err = parsePort(parts[0]); err != nil {
		return bad("host port: " + err.Error())
	}
	if p.Port, err = parsePort(parts[1]); err != nil {
		return bad("container port: " + err.Error())
	}
	if err := p.Validate(); err != nil {
		return bad(err.Error())
	}
	return p, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, errors.New("not a number from 1 to 65535")
	}
	return uint16(n), nil
}

func (p Port) Validate() error {
	switch {
	case p.Protocol != "tcp" && p.Protocol != "udp":
		return fmt.Errorf("protocol %q is neither tcp nor udp", p.Protocol)
	case p.HostPort == 0 || p.Port == 0:
		return errors.New("port 0 cannot be published")
	case p.HostIP.IsValid() && !p.HostIP.Is4():
		return fmt.Errorf("host address %s is not IPv4", p.HostIP)
	}
	return nil
}

func (p Port) String() string {
	host := ""
	if p.HostIP.IsValid() {
		host = p.HostIP.String() + ":"
	}
	return fmt.Sprintf("%s%d:%d/%s", host, p.HostPort, p.Port, p.Protocol)
}

// overlaps: the same packet could match both.
func (p Port) overlaps(q Port) bool {
	return p.Protocol == q.Protocol && p.HostPort == q.HostPort &&
		(!p.HostIP.IsValid() || !q.HostIP.IsValid() || p.HostIP == q.HostIP)
}

// validLinkName follows dev_valid_name in net/core/dev.c.
func validLinkName(s string) error {
	if len(s) == 0 || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: \t\n\v\f\r\x00") {
		return fmt.Errorf("link name %q: want 1 to 15 bytes without '/', ':' and white space", s)
	}
	return nil
}

// A MAC is an Ethernet address. In JSON it is the usual text.
type MAC [6]byte

// macFor makes the MAC of an address. Where the address is unique the MAC is
// too; a container that keeps its address over a restore or a move keeps its
// MAC; and when an address goes to another container, what its neighbours have
// in their caches is still right.
func macFor(a netip.Addr) MAC {
	ip := a.As4()
	return MAC{0x0e, 0xc7, ip[0], ip[1], ip[2], ip[3]} // 0x0e: locally administered, unicast
}

func (m MAC) IsZero() bool { return m == MAC{} }

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

func (m *MAC) UnmarshalText(b []byte) error {
	parts := strings.Split(string(b), ":")
	if len(parts) != len(m) {
		return fmt.Errorf("MAC %q: want six bytes like 0e:c7:0a:4d:00:05", b)
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 8)
		if err != nil || len(p) != 2 {
			return fmt.Errorf("MAC %q: want six bytes like 0e:c7:0a:4d:00:05", b)
		}
		m[i] = byte(n)
	}
	return nil
}
