package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Saved is what a container's namespace needs to be built again: plain data,
// readable, and free of this host's names.
type Saved struct {
	Links      []Link            `json:"links"`
	Address    netip.Prefix      `json:"address,omitzero"` // the attached link's first
	Gateway    netip.Addr        `json:"gateway,omitzero"` // of the default route
	Addresses  []Message         `json:"addresses,omitempty"`
	Routes     []Message         `json:"routes,omitempty"`
	Rules      []Message         `json:"rules,omitempty"`
	Neighbours []Message         `json:"neighbours,omitempty"`
	Sysctls    map[string]string `json:"sysctls,omitempty"` // below net/, only what is not the default
	Warnings   []Warning         `json:"warnings,omitempty"`
}

// A Link is one link of the namespace.
type Link struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"` // loopback, veth, dummy, bridge
	Index    int      `json:"index"`
	Attached bool     `json:"attached,omitempty"` // the one whose other end is on the host
	Peer     int      `json:"peer,omitempty"`     // of a pair inside: the other end's index
	Master   int      `json:"master,omitempty"`   // the bridge inside that it is a port of
	MAC      MAC      `json:"mac,omitzero"`
	MTU      int      `json:"mtu"`
	Queue    int      `json:"queue,omitempty"` // txqueuelen
	Flags    uint32   `json:"flags"`           // IFF_*
	Alias    string   `json:"alias,omitempty"`
	Options  []byte   `json:"options,omitempty"` // a bridge's IFLA_INFO_DATA
	Conf4    []uint32 `json:"conf4,omitempty"`   // net.ipv4.conf.NAME.*, by IPV4_DEVCONF_* - 1
	Conf6    []uint32 `json:"conf6,omitempty"`   // net.ipv6.conf.NAME.*, by DEVCONF_*
}

// A Message is an address, route, rule or neighbour as the kernel told it: the
// header (struct rtmsg, ...) and the attributes, without the netlink header. It
// is sent back as it is, as `ip route restore` does, so nothing that the kernel
// knows is lost for want of a field here; all link indices stay the same.
type Message struct {
	Text string `json:"text"` // the same for people
	Raw  []byte `json:"raw"`
}

// A Warning is something that Save does not carry, or Rebuild could not bring
// back, but that need not stop either.
type Warning struct {
	Kind   string `json:"kind"` // nftables, iptables, qdisc, xdp, sysctl, address, route
	Object string `json:"object"`
	Text   string `json:"text"`
}

func (w Warning) String() string { return w.Kind + " " + w.Object + ": " + w.Text }

// attached is the link whose other end is on the host, or nil.
func (s *Saved) attached() *Link {
	for i := range s.Links {
		if s.Links[i].Attached {
			return &s.Links[i]
		}
	}
	return nil
}

// An attribute of a netlink message.
type attribute struct {
	kind  uint16 // with NLA_F_NESTED and NLA_F_NET_BYTEORDER
	value []byte
}

// parsed is a message taken apart.
type parsed struct {
	header []byte
	attrs  []attribute
}

func parse(raw []byte, header int) (parsed, error) {
	if len(raw) < header {
		return parsed{}, fmt.Errorf("saved message of %d bytes: truncated", len(raw))
	}
	p := parsed{header: append([]byte(nil), raw[:header]...)}
	for b := raw[header:]; len(b) >= unix.SizeofRtAttr; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return parsed{}, fmt.Errorf("saved message: attribute of %d bytes in %d", n, len(b))
		}
		p.attrs = append(p.attrs, attribute{binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:n]})
		b = b[min(len(b), (n+3)&^3):]
	}
	return p, nil
}

func (p parsed) bytes() []byte {
	b := append([]byte(nil), p.header...)
	for _, a := range p.attrs {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(a.value)))
		b = binary.NativeEndian.AppendUint16(b, a.kind)
		b = append(b, a.value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

func (p parsed) get(kind uint16) []byte {
	for _, a := range p.attrs {
		if a.kind&0x3fff == kind {
			return a.value
		}
	}
	return nil
}

func (p parsed) addr(kind uint16) netip.Addr {
	a, _ := netip.AddrFromSlice(p.get(kind))
	return a
}

func (p parsed) u32(kind uint16) int { return int(u32(p.get(kind))) }

// set replaces an attribute, or with a nil value removes it.
func (p *parsed) set(kind uint16, value []byte) {
	kept := p.attrs[:0]
	for _, a := range p.attrs {
		if a.kind&0x3fff != kind {
			kept = append(kept, a)
		}
	}
	if p.attrs = kept; value != nil {
		p.attrs = append(p.attrs, attribute{kind, value})
	}
}

// The struct sizes of the four kinds of message (man 7 rtnetlink; fib_rule_hdr
// is laid out as rtmsg).
const (
	addressHeader       = unix.SizeofIfAddrmsg
	routeHeader         = unix.SizeofRtMsg
	ruleHeader          = unix.SizeofRtMsg
	neighbourHeaderSize = 12
)

func describeAddress(p parsed) string {
	a := p.addr(unix.IFA_LOCAL)
	if !a.IsValid() {
		a = p.addr(unix.IFA_ADDRESS)
	}
	return fmt.Sprintf("%s/%d dev %d", a, p.header[1], nativeU32(p.header[4:]))
}

func describeRoute(p parsed) string {
	var b strings.Builder
	dst := p.addr(unix.RTA_DST)
	if dst.IsValid() {
		fmt.Fprintf(&b, "%s/%d", dst, p.header[1])
	} else {
		b.WriteString("default")
	}
	if gw := p.addr(unix.RTA_GATEWAY); gw.IsValid() {
		fmt.Fprintf(&b, " via %s", gw)
	}
	if oif := p.u32(unix.RTA_OIF); oif != 0 {
		fmt.Fprintf(&b, " dev %d", oif)
	}
	if src := p.addr(unix.RTA_PREFSRC); src.IsValid() {
		fmt.Fprintf(&b, " src %s", src)
	}
	if m := p.u32(unix.RTA_PRIORITY); m != 0 {
		fmt.Fprintf(&b, " metric %d", m)
	}
	if t := p.table(); t != unix.RT_TABLE_MAIN {
		fmt.Fprintf(&b, " table %d", t)
	}
	if kind := p.header[7]; kind != unix.RTN_UNICAST {
		fmt.Fprintf(&b, " type %d", kind)
	}
	return b.String()
}

// table is the route's: the header has only eight bits for it.
func (p parsed) table() int {
	if t := p.u32(unix.RTA_TABLE); t != 0 {
		return t
	}
	return int(p.header[4])
}

func describeRule(p parsed) string {
	const fraPriority, fraSrc, fraDst, fraMark = 6, 2, 1, 10 // uapi/linux/fib_rules.h
	s := fmt.Sprintf("%d:", p.u32(fraPriority))
	if a := p.addr(fraSrc); a.IsValid() {
		s += fmt.Sprintf(" from %s/%d", a, p.header[2])
	}
	if a := p.addr(fraDst); a.IsValid() {
		s += fmt.Sprintf(" to %s/%d", a, p.header[1])
	}
	if m := p.u32(fraMark); m != 0 {
		s += fmt.Sprintf(" fwmark %#x", m)
	}
	return s + fmt.Sprintf(" table %d", p.table())
}

func describeNeighbour(p parsed) string {
	var mac MAC
	copy(mac[:], p.get(unix.NDA_LLADDR))
	return fmt.Sprintf("%s dev %d lladdr %s state %#x", p.addr(unix.NDA_DST), nativeU32(p.header[4:]), mac, binary.NativeEndian.Uint16(p.header[8:]))
}
