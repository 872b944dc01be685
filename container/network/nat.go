package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// All that crucible does to the host's packet filter for a bridge is in one table
// of the bridge's own, so that deleting the table undoes it, and nothing else:
// tables of other bridges, of this or another state root, stand beside it. Each
// translates what its own maps name and masquerades its own subnet.
//
//	table ip crucible {                     # crucible-BRIDGE for any but crucible0
//	  map published    { inet_proto . inet_service              : ipv4_addr . inet_service }
//	  map published_at { ipv4_addr . inet_proto . inet_service  : ipv4_addr . inet_service }
//	  chain guard  { type filter hook prerouting priority raw
//	    iifname BRIDGE ip daddr 127.0.0.0/8 drop }
//	  chain in     { type nat hook prerouting priority dstnat
//	    fib daddr type local dnat to ip daddr . meta l4proto . th dport map @published_at
//	    fib daddr type local dnat to meta l4proto . th dport map @published }
//	  chain local  { type nat hook output priority dstnat; the same two rules }
//	  chain out    { type nat hook postrouting priority srcnat
//	    ip saddr SUBNET oifname != BRIDGE masquerade          # containers reach the world
//	    ip saddr 127.0.0.0/8 oifname BRIDGE masquerade        # localhost:PORT on the host
//	    ip saddr SUBNET ip daddr SUBNET ct status dnat masquerade }  # a container, by the host's port, its neighbour
//	}
//
// localhost needs three things: the DNAT in the output hook (prerouting never
// sees what the host itself sends), the masquerade (a container cannot answer
// 127.0.0.1), and route_localnet on the bridge, without which the kernel calls
// the rerouted packet a martian. route_localnet alone would also let
// containers reach services of the host that listen on 127.0.0.1 only
// (CVE-2020-8558); the guard chain shuts that door. [::1] is not served.
//
// What another table drops stays dropped: an accept is final only in its own
// base chain (man 8 nft). A host with a forward policy of drop must let the
// bridge through itself.
type nat struct {
	Table  string
	Bridge string
	Subnet netip.Prefix
}

// reg numbers the 32-bit registers: 0 is NFT_REG32_00.
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

func (n nat) table() *nftables.Table {
	return &nftables.Table{Name: n.Table, Family: nftables.TableFamilyIPv4}
}

func (n nat) maps() (published, publishedAt *nftables.Set) {
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	published = &nftables.Set{
		Table: n.table(), Name: "published", IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
		DataType: target,
	}
	publishedAt = &nftables.Set{
		Table: n.table(), Name: "published_at", IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
		DataType: target,
	}
	return published, publishedAt
}

// set makes the table as drawn above, in one transaction, whatever was there.
func (n nat) set() error {
	c, err := nftables.New()
	if err != nil {
		return &NoNAT{err}
	}
	t := n.table()
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	c.AddTable(t)
	published, publishedAt := n.maps()
	published.ID, publishedAt.ID = 1, 2
	for _, s := range []*nftables.Set{published, publishedAt} {
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("nftables map %s: %w", s.Name, err)
		}
	}
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority, rules ...[]expr.Any) {
		ch := c.AddChain(&nftables.Chain{Table: t, Name: name, Type: kind, Hooknum: hook, Priority: prio})
		for _, r := range rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: r})
		}
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	masquerade := []expr.Any{&expr.Masq{}}
	toPublished := [][]expr.Any{dnatAt(publishedAt), dnat(published)}

	chain("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw,
		join(linkIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, n.Bridge), addressIn(daddr, loopback), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}))
	chain("in", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, toPublished...)
	chain("local", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, toPublished...)
	chain("out", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
		join(addressIn(saddr, n.Subnet), linkIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, n.Bridge), masquerade),
		join(addressIn(saddr, loopback), linkIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, n.Bridge), masquerade),
		join(addressIn(saddr, n.Subnet), addressIn(daddr, n.Subnet), wasTranslated(), masquerade))
	if err := c.Flush(); err != nil {
		return &NoNAT{err}
	}
	return nil
}

// publish makes the two maps hold exactly the ports of the leases. Connections
// that exist live on in conntrack.
func (n nat) publish(all []lease) error {
	c, err := nftables.New()
	if err != nil {
		return &NoNAT{err}
	}
	published, publishedAt := n.maps()
	c.FlushSet(published)
	c.FlushSet(publishedAt)
	for _, e := range all {
		for _, p := range e.Publish {
			proto := byte(unix.IPPROTO_TCP)
			if p.Protocol == "udp" {
				proto = unix.IPPROTO_UDP
			}
			// The fields of a concatenation are padded to four bytes each.
			s, key := published, append([]byte{proto, 0, 0, 0}, port32(p.HostPort)...)
			if p.HostIP.IsValid() {
				s, key = publishedAt, append(p.HostIP.AsSlice(), key...)
			}
			to := append(e.Address.AsSlice(), port32(p.Port)...)
			if err := c.SetAddElements(s, []nftables.SetElement{{Key: key, Val: to}}); err != nil {
				return fmt.Errorf("publish %s: %w", p, err)
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("fill nftables maps: %w", err)
	}
	return nil
}

// remove deletes the table, and is content if there is none.
func (n nat) remove() error {
	c, err := nftables.New()
	if err != nil {
		return &NoNAT{err}
	}
	c.DelTable(n.table())
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables table %s: %w", n.Table, err)
	}
	return nil
}

func port32(p uint16) []byte { return binary.BigEndian.AppendUint16(make([]byte, 0, 4), p)[:4] }

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Offsets in the IPv4 header (RFC 791).
const (
	saddr = 12
	daddr = 16
)

func loadAddress(offset, dest uint32) expr.Any {
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4, DestRegister: dest}
}

func addressIn(offset uint32, p netip.Prefix) []expr.Any {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		loadAddress(offset, reg(0)),
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: p.Masked().Addr().AsSlice()},
	}
}

func linkIs(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: padded},
	}
}

// wasTranslated matches a connection whose destination was rewritten.
func wasTranslated() []expr.Any {
	const ipsDstNAT = 1 << 5 // IPS_DST_NAT, uapi/linux/netfilter/nf_conntrack_common.h
	mask := binaryutil.NativeEndian.PutUint32(ipsDstNAT)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: make([]byte, 4)},
	}
}

// toHost matches packets to any address of the host itself.
func toHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg(0), FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func dnat(m *nftables.Set) []expr.Any {
	return append(toHost(),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(0)},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: reg(1)},
		&expr.Lookup{SourceRegister: reg(0), DestRegister: reg(4), IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg(4), RegProtoMin: reg(5)},
	)
}

func dnatAt(m *nftables.Set) []expr.Any {
	return append(toHost(),
		loadAddress(daddr, reg(0)),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(1)},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: reg(2)},
		&expr.Lookup{SourceRegister: reg(0), DestRegister: reg(4), IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg(4), RegProtoMin: reg(5)},
	)
}
