package network

import (
	"encoding/binary"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// This file builds the rtnetlink messages; nothing in it talks to the kernel.
// man 7 rtnetlink has the structs, include/uapi/linux/if_link.h the attributes.

const (
	create  = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	replace = unix.NLM_F_CREATE | unix.NLM_F_REPLACE

	// From include/uapi/linux; x/sys has no names for them.
	skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	sticky    = 1 << 6 // NTF_STICKY
)

func linkMessage(kind, flags, family int, index int) (*nl.NetlinkRequest, *nl.IfInfomsg) {
	info := nl.NewIfInfomsg(family)
	info.Index = int32(index)
	r := nl.NewNetlinkRequest(kind, flags)
	r.AddData(info)
	return r, info
}

func up(info *nl.IfInfomsg) {
	info.Flags |= unix.IFF_UP
	info.Change |= unix.IFF_UP
}

func setLinkUp(index int) *nl.NetlinkRequest {
	r, info := linkMessage(unix.RTM_NEWLINK, 0, unix.AF_UNSPEC, index)
	up(info)
	return r
}

// A vethEnd is one end of a pair. NS nil is the namespace of the socket.
type vethEnd struct {
	Name  string
	Index int // 0: the kernel chooses
	MAC   MAC // zero: the kernel chooses
	MTU   int // 0: 1500
	NS    *os.File
	Up    bool
}

// newVeth makes a pair, both ends in their namespaces and named, by one message.
// The index of the peer is taken by the kernel only when the main end's is given
// too (drivers/net/veth.c, veth_newlink).
//
// One queue each: the kernel's default is one per possible CPU, each with its
// directory in sysfs (100 us more on two CPUs), and a veth has no use for them:
// it sends without a queue, under no lock of its own.
func newVeth(main, peer vethEnd) *nl.NetlinkRequest {
	r, info := linkMessage(unix.RTM_NEWLINK, create, unix.AF_UNSPEC, main.Index)
	if main.Up {
		up(info)
	}
	for _, a := range append(main.attrs(), oneQueue()...) {
		r.AddData(a)
	}
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	p := kind.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	pinfo := nl.NewIfInfomsg(unix.AF_UNSPEC)
	pinfo.Index = int32(peer.Index)
	if peer.Up {
		up(pinfo)
	}
	p.AddChild(pinfo)
	for _, a := range append(peer.attrs(), oneQueue()...) {
		p.AddChild(a)
	}
	r.AddData(kind)
	return r
}

func oneQueue() []*nl.RtAttr {
	return []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1)),
		nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1)),
	}
}

func (e vethEnd) attrs() []*nl.RtAttr {
	attrs := []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(e.Name))}
	if !e.MAC.IsZero() {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_ADDRESS, e.MAC[:]))
	}
	if e.MTU != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(e.MTU))))
	}
	if e.NS != nil {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(e.NS.Fd()))))
	}
	return attrs
}

// newLink makes a link of a kind that has no other end.
func newLink(kind, name string, index, mtu int, mac MAC, options ...*nl.RtAttr) *nl.NetlinkRequest {
	r, _ := linkMessage(unix.RTM_NEWLINK, create, unix.AF_UNSPEC, index)
	for _, a := range (vethEnd{Name: name, MAC: mac, MTU: mtu}).attrs() {
		r.AddData(a)
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	if len(options) > 0 {
		data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
		for _, o := range options {
			data.AddChild(o)
		}
	}
	r.AddData(info)
	return r
}

// noIPv6 keeps link-local addresses off a link that is still down: a bridge port
// never uses one, and would probe for duplicates towards the container.
func noIPv6(name string) *nl.NetlinkRequest {
	r, _ := linkMessage(unix.RTM_SETLINK, 0, unix.AF_UNSPEC, 0)
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{1 /* IN6_ADDR_GEN_MODE_NONE */})
	r.AddData(spec)
	return r
}

// joinBridge makes the named link a port and brings it up. The alias is for
// people who read `ip link`.
func joinBridge(name string, bridge int, alias string) *nl.NetlinkRequest {
	r, info := linkMessage(unix.RTM_SETLINK, 0, unix.AF_UNSPEC, 0)
	up(info)
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	r.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)))
	return r
}

func setAliasOf(name, alias string) *nl.NetlinkRequest {
	r, _ := linkMessage(unix.RTM_SETLINK, 0, unix.AF_UNSPEC, 0)
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)))
	return r
}

func getLink(name string) *nl.NetlinkRequest {
	r, _ := linkMessage(unix.RTM_GETLINK, 0, unix.AF_UNSPEC, 0)
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	r.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	return r
}

func deleteLink(name string) *nl.NetlinkRequest {
	r, _ := linkMessage(unix.RTM_DELLINK, 0, unix.AF_UNSPEC, 0)
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	return r
}

// The states of a bridge port (include/uapi/linux/if_bridge.h).
//
// A mute host end is in the state that STP calls listening. It is as deaf as
// "disabled", and it stays: the bridge itself turns a disabled port on again at
// the next carrier event (net/bridge/br_if.c, br_port_carrier_check), and a
// blocking one at once where STP is off. Taking the link down instead costs a
// synchronize_net, takes the carrier from the container, and the carrier comes
// back asynchronously, so that the first frames after it are lost.
const (
	portListening  = 1
	portForwarding = 3
)

func setPort(index int, attrs ...*nl.RtAttr) *nl.NetlinkRequest {
	r, _ := linkMessage(unix.RTM_SETLINK, 0, unix.AF_BRIDGE, index)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for _, a := range attrs {
		info.AddChild(a)
	}
	r.AddData(info)
	return r
}

func setPortState(index int, state uint8) *nl.NetlinkRequest {
	return setPort(index, nl.NewRtAttr(nl.IFLA_BRPORT_STATE, []byte{state}))
}

func newAddress(index int, a netip.Prefix, flags int) *nl.NetlinkRequest {
	return addressMessage(unix.RTM_NEWADDR, flags, index, a)
}

func addressMessage(kind, flags, index int, a netip.Prefix) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(kind, flags)
	info := nl.NewIfAddrmsg(family(a.Addr()))
	info.Index = uint32(index)
	info.Prefixlen = uint8(a.Bits())
	r.AddData(info)
	ip := a.Addr().AsSlice()
	r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip))
	r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip))
	if a.Addr().Is4() && a.Bits() < 31 {
		r.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, lastOf(a).AsSlice()))
	}
	return r
}

func defaultRoute(index int, gateway netip.Addr) *nl.NetlinkRequest {
	return routeTo(index, netip.PrefixFrom(gateway, 0), gateway)
}

func routeTo(index int, to netip.Prefix, gateway netip.Addr) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, create)
	m := nl.NewRtMsg() // main table, proto boot, scope universe, unicast
	m.Family = uint8(family(gateway))
	m.Dst_len = uint8(to.Bits())
	r.AddData(m)
	if to.Bits() > 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_DST, to.Masked().Addr().AsSlice()))
	}
	r.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, gateway.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	return r
}

// fdbEntry turns frames for mac to the port. Kept: the entry stays there
// although frames *from* mac come in by another port (NTF_STICKY, Linux 4.20;
// without it even a static entry moves: net/bridge/br_fdb.c, br_fdb_update).
func fdbEntry(port int, mac MAC, kept bool) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, replace)
	m := neighbourHeader{Family: unix.AF_BRIDGE, Index: uint32(port), State: unix.NUD_REACHABLE, Flags: unix.NTF_MASTER}
	if kept {
		m.State = unix.NUD_NOARP
		m.Flags |= sticky
	}
	r.AddData(m)
	r.AddData(nl.NewRtAttr(unix.NDA_LLADDR, mac[:]))
	return r
}

// newNeighbour puts ip's MAC into the neighbour table, to be used at once and
// verified as it is used.
func newNeighbour(index int, ip netip.Addr, mac MAC) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, replace)
	r.AddData(neighbourHeader{Family: uint8(family(ip)), Index: uint32(index), State: unix.NUD_STALE, Type: unix.RTN_UNICAST})
	r.AddData(nl.NewRtAttr(unix.NDA_DST, ip.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.NDA_LLADDR, mac[:]))
	return r
}

func deleteFDBEntry(port int, mac MAC) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_DELNEIGH, 0)
	r.AddData(neighbourHeader{Family: unix.AF_BRIDGE, Index: uint32(port), Flags: unix.NTF_MASTER})
	r.AddData(nl.NewRtAttr(unix.NDA_LLADDR, mac[:]))
	return r
}

// A neighbourHeader is struct ndmsg (man 7 rtnetlink).
type neighbourHeader struct {
	Family uint8
	Index  uint32
	State  uint16
	Flags  uint8
	Type   uint8
}

func (neighbourHeader) Len() int { return 12 }

func (h neighbourHeader) Serialize() []byte {
	b := make([]byte, 12)
	b[0] = h.Family
	binary.NativeEndian.PutUint32(b[4:], h.Index)
	binary.NativeEndian.PutUint16(b[8:], h.State)
	b[10], b[11] = h.Flags, h.Type
	return b
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// lastOf is the highest address of a prefix: of an IPv4 subnet, its broadcast.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
