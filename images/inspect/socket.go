package inspect

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Socket is what a file is that is a socket.
type Socket struct {
	// Family is unix, inet, inet6, netlink or packet, Type stream, dgram,
	// seqpacket or raw, and Protocol tcp, udp, ..., or the netlink family.
	Family   string `json:"family"`
	Type     string `json:"type"`
	Protocol string `json:"protocol,omitempty"`
	State    string `json:"state,omitempty"`
	Inode    uint32 `json:"inode"`
	// Local and Remote are addresses; of a unix socket paths, or @NAME in
	// the abstract namespace.
	Local  string `json:"local,omitempty"`
	Remote string `json:"remote,omitempty"`
	// Peers have the other end, if it is in the container.
	Peers []Holder `json:"peers,omitempty"`
	// Received and Unsent are bytes: that nobody has read, and of TCP that the
	// other side has not confirmed.
	Received uint64 `json:"received,omitempty"`
	Unsent   uint64 `json:"unsent,omitempty"`
	Backlog  uint32 `json:"backlog,omitempty"` // of one that listens

	peer      uint32 // inode of a unix socket's other end
	connected bool
}

type (
	unixEntry struct {
		Inode   uint32 `criu:"ino"`
		Type    uint32 `criu:"type"`
		State   uint32 `criu:"state"`
		Flags   uint32 `criu:"flags"`
		Backlog uint32 `criu:"backlog"`
		Peer    uint32 `criu:"peer"`
		Name    []byte `criu:"name"`
		Dir     string `criu:"name_dir"`
		Deleted bool   `criu:"deleted"`
	}
	inetEntry struct {
		Inode   uint32   `criu:"ino"`
		Family  uint32   `criu:"family"`
		Type    uint32   `criu:"type"`
		Proto   uint32   `criu:"proto"`
		State   uint32   `criu:"state"`
		Flags   uint32   `criu:"flags"`
		Backlog uint32   `criu:"backlog"`
		Src     []uint32 `criu:"src_addr"`
		SrcPort uint16   `criu:"src_port"`
		Dst     []uint32 `criu:"dst_addr"`
		DstPort uint16   `criu:"dst_port"`
		Ifname  string   `criu:"ifname"`
	}
	netlinkEntry struct {
		Inode    uint32 `criu:"ino"`
		Protocol uint32 `criu:"protocol"`
		Flags    uint32 `criu:"flags"`
		Port     uint32 `criu:"portid"`
		To       uint32 `criu:"dst_portid"`
	}
	packetEntry struct {
		Type     uint32 `criu:"type"`
		Protocol uint32 `criu:"protocol"`
		Flags    uint32 `criu:"flags"`
		Ifindex  uint32 `criu:"ifindex"`
	}
)

func socketType(t uint32) string {
	return named(map[uint32]string{unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_RAW: "raw",
		unix.SOCK_SEQPACKET: "seqpacket", unix.SOCK_PACKET: "packet"}, t, "type")
}

// socketState are the states of TCP (include/net/tcp_states.h), which the
// kernel gives to the sockets of all families.
func socketState(s uint32) string {
	states := strings.Fields("established syn-sent syn-received fin-wait-1 fin-wait-2 time-wait unconnected close-wait last-ack listening closing")
	if s < 1 || int(s) > len(states) {
		return fmt.Sprintf("state %d", s)
	}
	return states[s-1]
}

func (e *unixEntry) socket() *Socket {
	s := &Socket{Family: "unix", Type: socketType(e.Type), State: socketState(e.State), Inode: e.Inode, peer: e.Peer}
	name := string(e.Name)
	switch {
	case strings.HasPrefix(name, "\x00"): // unix(7): all bytes count
		s.Local = "@" + name[1:]
	case name != "":
		s.Local, _, _ = strings.Cut(name, "\x00")
		if e.Dir != "" && !strings.HasPrefix(s.Local, "/") {
			s.Local = e.Dir + "/" + s.Local
		}
	}
	if s.State == "listening" {
		s.Backlog = e.Backlog
	}
	return s
}

func (e *inetEntry) socket() *Socket {
	s := &Socket{Family: "inet", Type: socketType(e.Type), State: socketState(e.State), Inode: e.Inode}
	if e.Family == unix.AF_INET6 {
		s.Family = "inet6"
	}
	s.Protocol = named(map[uint32]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_UDPLITE: "udplite", unix.IPPROTO_ICMP: "icmp",
		unix.IPPROTO_ICMPV6: "icmpv6", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_RAW: "raw"}, e.Proto, "protocol")
	s.Local = address(e.Src, e.SrcPort, e.Ifname)
	if e.DstPort != 0 {
		s.Remote, s.connected = address(e.Dst, e.DstPort, e.Ifname), true
	}
	if s.State == "listening" {
		s.Backlog = e.Backlog
	}
	return s
}

// address puts together what CRIU writes as the words of struct in_addr.
func address(words []uint32, port uint16, zone string) string {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return fmt.Sprintf("?:%d", port)
	}
	if a.Is6() && zone != "" {
		a = a.WithZone(zone)
	}
	return netip.AddrPortFrom(a, port).String()
}

func (e *netlinkEntry) socket() *Socket {
	s := &Socket{Family: "netlink", Type: "raw", Inode: e.Inode, Local: fmt.Sprintf("port %d", e.Port)}
	s.Protocol = named(map[uint32]string{unix.NETLINK_ROUTE: "route", unix.NETLINK_SOCK_DIAG: "sock_diag", unix.NETLINK_NETFILTER: "netfilter",
		unix.NETLINK_KOBJECT_UEVENT: "uevent", unix.NETLINK_AUDIT: "audit", unix.NETLINK_GENERIC: "generic", unix.NETLINK_XFRM: "xfrm", unix.NETLINK_CONNECTOR: "connector"}, e.Protocol, "protocol")
	if e.To != 0 {
		s.Remote = fmt.Sprintf("port %d", e.To)
	}
	return s
}

func (e *packetEntry) socket() *Socket {
	s := &Socket{Family: "packet", Type: socketType(e.Type), Local: "all links"}
	if e.Protocol != 0 {
		s.Protocol = fmt.Sprintf("%#04x", e.Protocol)
	}
	if e.Ifindex != 0 {
		s.Local = fmt.Sprintf("link %d", e.Ifindex)
	}
	return s
}

// Kind is the protocol, or the family where that says all.
func (s *Socket) Kind() string {
	switch {
	case s.Family == "inet6" && s.Protocol != "icmpv6":
		return s.Protocol + "6"
	case s.Family == "inet" || s.Family == "inet6":
		return s.Protocol
	case s.Family == "unix":
		return "unix " + s.Type
	case s.Protocol != "":
		return s.Family + " " + s.Protocol
	}
	return s.Family
}

func (s *Socket) words() []string {
	words := []string{s.Kind()}
	if s.Local != "" {
		words = append(words, s.Local)
	}
	if s.Remote != "" {
		words = append(words, "-> "+s.Remote)
	}
	if s.State != "" && s.Family != "netlink" {
		words = append(words, s.State)
	}
	if len(s.Peers) > 0 {
		words = append(words, "to "+holders(s.Peers))
	} else if s.peer != 0 {
		words = append(words, "to the outside")
	}
	if s.Received > 0 {
		words = append(words, fmt.Sprintf("%d bytes unread", s.Received))
	}
	if s.Unsent > 0 {
		words = append(words, fmt.Sprintf("%d bytes unconfirmed", s.Unsent))
	}
	return words
}
