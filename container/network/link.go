package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linkInfo is what we read from an RTM_NEWLINK message.
type linkInfo struct {
	Index     int
	Name      string
	Kind      string // of IFLA_LINKINFO; empty for hardware and loopback
	Alias     string
	MAC       MAC
	MTU       int
	Queue     int
	Flags     uint32
	Master    int
	Peer      int  // IFLA_LINK: the index of the other end, in its namespace
	PeerAway  bool // the other end is in another namespace
	Loopback  bool
	Operating bool     // operstate up (a loopback never says so)
	Conf4     []uint32 // net.ipv4.conf.<link>, by IPV4_DEVCONF_* - 1
	Conf6     []uint32 // net.ipv6.conf.<link>, by DEVCONF_*
	Data      []byte   // IFLA_INFO_DATA
	XDP       bool
}

func (l linkInfo) up() bool { return l.Flags&unix.IFF_UP != 0 }

func parseLink(b []byte) (linkInfo, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return linkInfo{}, errors.New("link message: truncated")
	}
	l := linkInfo{
		Index:    int(int32(nativeU32(b[4:]))),
		Flags:    nativeU32(b[8:]),
		Loopback: binary.NativeEndian.Uint16(b[2:]) == unix.ARPHRD_LOOPBACK,
	}
	eachAttr(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = cString(v)
		case unix.IFLA_IFALIAS:
			l.Alias = cString(v)
		case unix.IFLA_ADDRESS:
			copy(l.MAC[:], v)
		case unix.IFLA_MTU:
			l.MTU = int(u32(v))
		case unix.IFLA_TXQLEN:
			l.Queue = int(u32(v))
		case unix.IFLA_MASTER:
			l.Master = int(u32(v))
		case unix.IFLA_LINK:
			l.Peer = int(int32(u32(v)))
		case unix.IFLA_LINK_NETNSID:
			l.PeerAway = true
		case unix.IFLA_OPERSTATE:
			l.Operating = len(v) == 1 && v[0] == 6 // IF_OPER_UP (RFC 2863)
		case unix.IFLA_XDP:
			eachAttr(v, func(k uint16, v []byte) {
				l.XDP = l.XDP || k == nl.IFLA_XDP_ATTACHED && len(v) == 1 && v[0] != 0
			})
		case unix.IFLA_LINKINFO:
			eachAttr(v, func(k uint16, v []byte) {
				switch k {
				case nl.IFLA_INFO_KIND:
					l.Kind = cString(v)
				case nl.IFLA_INFO_DATA:
					l.Data = append([]byte(nil), v...)
				}
			})
		case unix.IFLA_AF_SPEC:
			l.Conf4, l.Conf6 = parseConf(v)
		}
	})
	return l, nil
}

// parseConf reads the sysctls of a link: IFLA_AF_SPEC holds a family's
// attributes, among them an array.
func parseConf(b []byte) (conf4, conf6 []uint32) {
	eachAttr(b, func(family uint16, v []byte) {
		eachAttr(v, func(kind uint16, v []byte) {
			switch {
			case family == unix.AF_INET && kind == unix.IFLA_INET_CONF:
				conf4 = u32s(v)
			case family == unix.AF_INET6 && kind == unix.IFLA_INET6_CONF:
				conf6 = u32s(v)
			}
		})
	})
	return conf4, conf6
}

func nativeU32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

// u32 reads an attribute; a short one is 0.
func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return nativeU32(b)
}

func u32s(b []byte) []uint32 {
	v := make([]uint32, len(b)/4)
	for i := range v {
		v[i] = nativeU32(b[i*4:])
	}
	return v
}

// link looks a link up by name.
func (s *socket) link(name string) (l linkInfo, found bool, err error) {
	err = s.links(func(x linkInfo) { l, found = x, true }, getLink(name))
	if errors.Is(err, unix.ENODEV) {
		return l, false, nil
	}
	if err != nil {
		return l, false, fmt.Errorf("look up link %s: %w", name, err)
	}
	return l, found, nil
}

// links sends the requests and gives every link in the answers to f.
func (s *socket) links(f func(linkInfo), reqs ...*nl.NetlinkRequest) error {
	var bad error
	err := s.ask(func(r reply) {
		if r.kind != unix.RTM_NEWLINK {
			return
		}
		l, err := parseLink(r.data)
		if err != nil {
			bad = err
			return
		}
		f(l)
	}, reqs...)
	if err == nil {
		err = bad
	}
	return err
}

// allLinks lists every link of the namespace.
func (s *socket) allLinks() ([]linkInfo, error) {
	r, _ := linkMessage(unix.RTM_GETLINK, unix.NLM_F_DUMP, unix.AF_UNSPEC, 0)
	r.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	replies, err := s.list(r)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var all []linkInfo
	for _, r := range replies {
		l, err := parseLink(r.data)
		if err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
		all = append(all, l)
	}
	return all, nil
}

func (s *socket) linkExists(name string) bool {
	if name == "" {
		return false
	}
	_, found, err := s.link(name)
	return found || err != nil // in doubt it does
}

func dump(kind, size int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(kind, unix.NLM_F_DUMP)
	r.AddRawData(make([]byte, size))
	return r
}

// addressOf is the first IPv4 address of a link.
func (s *socket) addressOf(index int) (p netip.Prefix, err error) {
	err = s.addresses4(func(i int, a netip.Prefix) {
		if i == index && !p.IsValid() {
			p = a
		}
	})
	return p, err
}

// addresses4 gives f every IPv4 address of the namespace, and its link.
func (s *socket) addresses4(f func(index int, a netip.Prefix)) error {
	replies, err := s.list(dump(unix.RTM_GETADDR, unix.SizeofIfAddrmsg))
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, r := range replies {
		if len(r.data) < unix.SizeofIfAddrmsg || r.data[0] != unix.AF_INET {
			continue
		}
		eachAttr(r.data[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
			if a, ok := netip.AddrFromSlice(v); ok && kind == unix.IFA_LOCAL {
				f(int(nativeU32(r.data[4:])), netip.PrefixFrom(a, int(r.data[1])))
			}
		})
	}
	return nil
}

// usedSubnets are those that a new one must not overlap: of the host's IPv4
// addresses, also on links that are down and so have no route yet, of its
// routes, and of bridges of ours that somebody is just making. defaultLink is
// that of the default route.
func (s *socket) usedSubnets(links []linkInfo) (used []netip.Prefix, defaultLink int, err error) {
	err = s.addresses4(func(_ int, a netip.Prefix) { used = append(used, a.Masked()) })
	if err != nil {
		return nil, 0, err
	}
	for _, l := range links {
		if mark, ok := parseAlias(l.Alias); ok {
			used = append(used, mark.Gateway.Masked())
		}
	}
	routes, defaultLink, err := s.routes4()
	return append(used, routes...), defaultLink, err
}

// routes4 lists the destinations of the host's IPv4 routes, and the link of the
// default route.
func (s *socket) routes4() (used []netip.Prefix, defaultLink int, err error) {
	r := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	m := nl.NewRtMsg()
	m.Family = unix.AF_INET
	r.AddData(m)
	replies, err := s.list(r)
	if err != nil {
		return nil, 0, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range replies {
		if len(r.data) < unix.SizeofRtMsg {
			continue
		}
		bits, dst, oif := int(r.data[1]), netip.IPv4Unspecified(), 0
		eachAttr(r.data[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.RTA_DST:
				if a, ok := netip.AddrFromSlice(v); ok {
					dst = a
				}
			case unix.RTA_OIF:
				oif = int(u32(v))
			}
		})
		switch {
		case bits > 0:
			used = append(used, netip.PrefixFrom(dst, bits))
		case defaultLink == 0:
			defaultLink = oif
		}
	}
	return used, defaultLink, nil
}
