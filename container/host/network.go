package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func networkProbes() []probe {
	const group = "network"
	inside := func(f func() error, no ...unix.Errno) func() answer {
		return func() answer { return verdict(apart(unix.CLONE_NEWNET, f), no...) }
	}
	return []probe{
		{group, "veth", true, inside(func() error { return tryLink("veth") }, unix.EOPNOTSUPP),
			"containers have no link to the outside", "load the module: modprobe veth"},
		{group, "bridge", true, inside(func() error { return tryLink("bridge") }, unix.EOPNOTSUPP),
			"containers have no link to the outside", "load the module: modprobe bridge"},
		{group, "packet sockets", false, inside(tryPacket, unix.EAFNOSUPPORT, unix.ENOPROTOOPT, unix.EINVAL),
			"frames that arrive during a checkpoint are lost: clients wait for a retransmission", "load the module: modprobe af_packet"},
		{group, "tcp repair", true, inside(tryTCPRepair, unix.ENOPROTOOPT),
			"TCP connections cannot be carried", "build the kernel with CONFIG_CHECKPOINT_RESTORE=y"},
		{group, "socket diagnosis", true, askDiag,
			"what is queued in sockets of these kinds is not seen before a checkpoint", "load the modules: modprobe -a unix_diag tcp_diag udp_diag inet_diag"},
		{group, "other sockets' diagnosis", false, askRareDiag,
			"sockets of these kinds cannot be checkpointed", "load the modules: modprobe -a raw_diag af_packet_diag netlink_diag"},
		{group, "nftables", false, inside(tryNftables, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EINVAL, unix.ENOENT),
			"no published ports; a CRIU that was built with it does not start", "load the module: modprobe nf_tables"},
	}
}

func tryLink(kind string) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("probe")))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	request.AddData(info)
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("make a %s: %w", kind, err)
	}
	return nil
}

// tryPacket opens a socket as the parking of frames does: those of a veth carry
// unfinished checksums, which PACKET_VNET_HDR passes on (packet(7)).
func tryPacket() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return fmt.Errorf("set PACKET_VNET_HDR: %w", err)
	}
	return nil
}

func tryTCPRepair() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open TCP socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
		return fmt.Errorf("set TCP_REPAIR: %w", err)
	}
	return nil
}

// A diag is a kind of socket that sock_diag(7) may know.
type diag struct {
	name             string
	family, protocol byte
	size             int // of the request that the family's module wants
}

func usualDiags() []diag {
	return []diag{
		{"unix", unix.AF_UNIX, 0, 24},
		{"tcp", unix.AF_INET, unix.IPPROTO_TCP, 56},
		{"udp", unix.AF_INET, unix.IPPROTO_UDP, 56},
		{"tcp6", unix.AF_INET6, unix.IPPROTO_TCP, 56},
		{"udp6", unix.AF_INET6, unix.IPPROTO_UDP, 56},
	}
}

func rareDiags() []diag {
	return []diag{
		{"raw", unix.AF_INET, unix.IPPROTO_RAW, 56},
		{"packet", unix.AF_PACKET, 0, 20},
		{"netlink", unix.AF_NETLINK, 0, 20},
	}
}

// Undiagnosed are the kinds of sockets that sock_diag(7) does not know here, so
// that CRIU does not find them: of unix, tcp, udp, tcp6, udp6, raw, packet and
// netlink.
func Undiagnosed() ([]string, error) {
	_, lack, err := tryDiags(append(usualDiags(), rareDiags()...))
	return lack, err
}

func askDiag() answer     { return askDiags(usualDiags()) }
func askRareDiag() answer { return askDiags(rareDiags()) }

func askDiags(kinds []diag) answer {
	have, lack, err := tryDiags(kinds)
	switch {
	case err != nil:
		return unknown(err)
	case lack != nil:
		return missing("no %s", strings.Join(lack, ", "))
	}
	return good("%s", strings.Join(have, ", "))
}

func tryDiags(kinds []diag) (have, lack []string, err error) {
	err = apart(unix.CLONE_NEWNET, func() error {
		for _, kind := range kinds {
			switch err := kind.try(); {
			case err == nil:
				have = append(have, kind.name)
			case errors.Is(err, unix.ENOENT):
				lack = append(lack, kind.name)
			default:
				return fmt.Errorf("sock_diag %s: %w", kind.name, err)
			}
		}
		return nil
	})
	return have, lack, err
}

// try lists the sockets of the kind, of which there are none here. ENOENT: no
// module for the family or the protocol (net/core/sock_diag.c,
// net/ipv4/inet_diag.c).
func (d diag) try() error {
	const sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	request := nl.NewNetlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP)
	body := make([]byte, d.size)
	body[0], body[1] = d.family, d.protocol
	request.AddRawData(body)
	_, err := request.Execute(unix.NETLINK_SOCK_DIAG, 0)
	return err
}

// tryNftables makes a table of the inet family and a chain that sees packets.
// A change is a batch: several messages in one datagram, of which all or none
// take effect.
func tryNftables() error {
	const table, chain = "probe", "in"
	hook := nl.NewRtAttr(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, nil)
	hook.AddRtAttr(unix.NFTA_HOOK_HOOKNUM, nl.BEUint32Attr(1 /* NF_INET_LOCAL_IN */))
	hook.AddRtAttr(unix.NFTA_HOOK_PRIORITY, nl.BEUint32Attr(0))
	err := transact(unix.NETLINK_NETFILTER,
		nfMessage(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES),
		nfMessage(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_ACK, unix.NFPROTO_INET, 0,
			nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(table))),
		nfMessage(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_ACK, unix.NFPROTO_INET, 0,
			nl.NewRtAttr(unix.NFTA_CHAIN_TABLE, nl.ZeroTerminated(table)),
			nl.NewRtAttr(unix.NFTA_CHAIN_NAME, nl.ZeroTerminated(chain)),
			hook,
			nl.NewRtAttr(unix.NFTA_CHAIN_TYPE, nl.ZeroTerminated("filter"))),
		nfMessage(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES))
	if err != nil {
		return fmt.Errorf("make an inet table with a filter chain: %w", err)
	}
	return nil
}

// nfMessage begins with struct nfgenmsg, whose resource is big-endian.
func nfMessage(kind, flags int, family byte, resource uint16, attrs ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	request := nl.NewNetlinkRequest(kind, flags)
	var id [2]byte
	binary.BigEndian.PutUint16(id[:], resource)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: unix.NFNETLINK_V0, ResId: binary.NativeEndian.Uint16(id[:])})
	for _, attr := range attrs {
		request.AddData(attr)
	}
	return request
}

// transact sends the messages as one datagram and waits for the answers to
// those that want one. Netlink answers before sendto(2) returns, so that
// nothing is waited for that does not come.
func transact(protocol int, messages ...*nl.NetlinkRequest) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer unix.Close(fd)
	var out []byte
	want := 0
	for _, message := range messages {
		out = append(out, message.Serialize()...)
		if message.Flags&unix.NLM_F_ACK != 0 {
			want++
		}
	}
	if err := unix.Sendto(fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	buffer := make([]byte, 16<<10)
	for want > 0 {
		n, _, err := unix.Recvfrom(fd, buffer, unix.MSG_DONTWAIT)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		answers, err := nlmsgErrors(buffer[:n])
		if err != nil {
			return err
		}
		want -= answers
	}
	return nil
}

// nlmsgErrors counts the acknowledgements in b and returns the first refusal.
func nlmsgErrors(b []byte) (int, error) {
	count := 0
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return count, errors.New("receive: truncated message")
		}
		if body := b[unix.SizeofNlMsghdr:length]; kind == unix.NLMSG_ERROR && len(body) >= 4 {
			if errno := int32(binary.NativeEndian.Uint32(body)); errno != 0 {
				return count, unix.Errno(-errno)
			}
			count++
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return count, nil
}
