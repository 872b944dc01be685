package edit

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/encoding/protowire"

	"crucible/container/network"
	"crucible/images"
	"crucible/proto/imagepb"
)

// The numbers of file_entry (CRIU's fdinfo.proto) and inet_sk_entry
// (sk-inet.proto), and those of a TCP socket's states (net/tcp_states.h).
const (
	fileInetSocket = 4

	skFamily, skProto, skState   = 3, 5, 6
	skSrcPort, skDstPort         = 7, 8
	skSrcAddr, skDstAddr         = 11, 12
	tcpClose, tcpListen, ipv6Len = 7, 10, 4
)

// address changes what the container is to be attached with. What the kernel told
// of its links, addresses and routes stays: a restore puts the new address in the
// place of the old one (network.Rebuild), as it does for a clone. CRIU's sockets
// are bound to the new one at once, which a clone's are not.
func (e *Edit) address() error {
	to := e.o.Address
	if !to.IsValid() {
		if e.o.TCPClose {
			return e.refuse("give --address, or close them at the restore: `crucible restore --tcp-close`", "connections are closed for the sake of another address, and none is given")
		}
		return nil
	}
	space := e.namespace(imagepb.NamespaceKind_NAMESPACE_KIND_NETWORK).GetNetwork()
	a := space.GetAttachment()
	if a == nil || a.Mode != string(network.ModeBridge) {
		return e.refuse("only a container that was run with --net bridge has an address to change", "address: the container is on no bridge")
	}
	config, err := network.ConfigFrom(a)
	if err != nil {
		return fmt.Errorf("image %s: %w", e.image.Ref(), err)
	}
	from := config.Address
	if to.Bits() == to.Addr().BitLen() {
		to = netip.PrefixFrom(to.Addr(), from.Bits())
	}
	if to == from {
		return nil
	}
	if !to.Addr().Is4() || to.Addr() == to.Masked().Addr() && to.Bits() < 31 || to.Addr().IsUnspecified() || to.Addr().IsMulticast() || to.Addr().IsLoopback() {
		return e.refuse("take a free one of the bridge's subnet, such as one near "+from.Addr().String(), "address %s: must be an IPv4 address of one host", to)
	}
	e.change(images.Namespaces, "network address", a.Address, to)
	a.Address = to.String()
	if gateway, err := netip.ParseAddr(a.Gateway); err == nil && !to.Contains(gateway) {
		e.change(images.Namespaces, "network gateway", a.Gateway, "")
		a.Gateway = ""
	}
	if mac := (network.MAC{}).String(); a.Mac != mac {
		e.change(images.Namespaces, "hardware address", a.Mac, "made of the address")
		a.Mac = mac
	}
	if from.Addr() == to.Addr() {
		return nil
	}
	return e.sockets(from.Addr(), to.Addr())
}

// sockets gives the sockets that have the old address the new one.
func (e *Edit) sockets(from, to netip.Addr) error {
	const file = images.CRIU + "/files.img"
	connected := 0
	err := e.rewriteFile(file, magicFiles, func(entry []byte) ([]byte, error) {
		return rewrite(entry, func(f *field) error {
			if f.number != fileInetSocket || f.typ != protowire.BytesType {
				return nil
			}
			s, err := parseSocket(f.value)
			if err != nil {
				return err
			}
			if s.proto == protoTCP && s.state != tcpListen && s.state != tcpClose && (s.src == from || s.dst == from) {
				connected++
			}
			f.value, err = e.moveSocket(file, f.value, s, from, to)
			return err
		})
	})
	if err != nil {
		return err
	}
	if connected > 0 && !e.o.TCPClose {
		return e.refuse("close them with --tcp-close, or restore the image at its own address",
			"address: it holds TCP connections of %s (%d sockets): they cannot go on from another address", from, connected)
	}
	if !e.o.TCPClose {
		return nil
	}
	streams, err := e.criuFiles("tcp-stream-*.img")
	if err != nil {
		return err
	}
	for _, s := range streams {
		e.gone[s] = true
		e.change(s, "TCP connection", "established", "")
	}
	e.traits.EstablishedTcp = false
	return nil
}

const protoTCP = 6

// socket is what is to be known of an inet_sk_entry.
type socket struct {
	proto, state     uint64
	srcPort, dstPort uint64
	src, dst         netip.Addr
}

func (s socket) String() string {
	word := map[uint64]string{protoTCP: "tcp", 17: "udp"}[s.proto]
	if word == "" {
		word = fmt.Sprintf("protocol %d", s.proto)
	}
	return fmt.Sprintf("%s %s:%d", word, s.src, s.srcPort)
}

func parseSocket(entry []byte) (s socket, err error) {
	var src, dst []uint32
	err = fields(entry, func(f field) {
		switch f.number {
		case skProto:
			s.proto = f.varint()
		case skState:
			s.state = f.varint()
		case skSrcPort:
			s.srcPort = f.varint()
		case skDstPort:
			s.dstPort = f.varint()
		case skSrcAddr:
			src = append(src, words(f)...)
		case skDstAddr:
			dst = append(dst, words(f)...)
		}
	})
	s.src, s.dst = addressOf(src), addressOf(dst)
	return s, err
}

// words are the values of a repeated number, packed or not.
func words(f field) (all []uint32) {
	if f.typ == protowire.VarintType {
		return []uint32{uint32(f.varint())}
	}
	for b := f.value; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return all
		}
		all, b = append(all, uint32(v)), b[n:]
	}
	return all
}

// addressOf reads an address as CRIU keeps it: the bytes that the kernel has, in
// words of the machine. An IPv4 address in an IPv6 socket is that address.
func addressOf(words []uint32) netip.Addr {
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}

// moveSocket puts the new address in the old one's place, and with TCPClose
// takes a connection's end away.
func (e *Edit) moveSocket(file string, entry []byte, s socket, from, to netip.Addr) ([]byte, error) {
	closes := e.o.TCPClose && s.proto == protoTCP && s.state != tcpListen && s.state != tcpClose
	if s.src != from && s.dst != from && !closes {
		return entry, nil
	}
	if s.src == from {
		now := s
		now.src = to
		e.change(file, "socket", s, now)
	}
	if closes {
		e.change(file, s.String()+" to "+netip.AddrPortFrom(s.dst, uint16(s.dstPort)).String(), "connection", "closed")
	}
	old, now := wordOf(from), wordOf(to)
	return rewrite(entry, func(f *field) error {
		switch f.number {
		case skSrcAddr, skDstAddr:
			// Of an IPv4 address in an IPv6 socket it is the last of four words.
			if f.typ == protowire.VarintType && uint32(f.varint()) == old {
				f.value = protowire.AppendVarint(nil, uint64(now))
			} else if f.typ == protowire.BytesType {
				f.value = moveWords(words(*f), old, now)
			}
		case skState:
			if closes {
				f.value = protowire.AppendVarint(nil, tcpClose)
			}
		case skSrcPort, skDstPort:
			if closes {
				f.value = protowire.AppendVarint(nil, 0)
			}
		}
		return nil
	})
}

func moveWords(all []uint32, old, now uint32) (b []byte) {
	for _, w := range all {
		if w == old {
			w = now
		}
		b = protowire.AppendVarint(b, uint64(w))
	}
	return b
}

func wordOf(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}
