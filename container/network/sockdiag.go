package network

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// This file builds the requests of sock_diag(7) and reads its answers; nothing
// in it talks to the kernel. vishvananda/netlink (v1.3.1) lists TCP, UDP, unix and
// XDP sockets, not the raw, packet, netlink and vsock sockets that matter here.

// diagRequest is the beginning that all families' requests have in common: family,
// protocol, two bytes; then 32-bit words, and zeros up to size.
func diagRequest(family, protocol byte, size int, words ...uint32) *nl.NetlinkRequest {
	b := make([]byte, size)
	b[0], b[1] = family, protocol
	for i, w := range words {
		binary.NativeEndian.PutUint32(b[4+4*i:], w)
	}
	r := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	r.AddRawData(b)
	return r
}

const (
	showUnix       = 0x1 | 0x4 | 0x10 | 0x40 // UDIAG_SHOW_NAME, PEER, RQLEN, UID
	showPacketInfo = 0x1                     // PACKET_SHOW_INFO
)

// struct inet_diag_req_v2 is 56 bytes: family, protocol, ext, pad, states, and
// the identity of one socket, which a dump does not need.
func inetRequest(family, protocol int) *nl.NetlinkRequest {
	return diagRequest(byte(family), byte(protocol), 56, allStates)
}

// tcpRequest is the old request (struct inet_diag_req, also 56 bytes), because
// it alone takes AF_UNSPEC: one walk of the table serves both families
// (net/ipv4/inet_diag.c, inet_diag_dump_compat).
func tcpRequest(states uint32) *nl.NetlinkRequest {
	const tcpDiagGetSock, inetDiagInfo = 18, 2
	b := make([]byte, 60)
	b[3] = 1 << (inetDiagInfo - 1) // with it comes the name of an upper layer protocol
	binary.NativeEndian.PutUint32(b[52:], states)
	r := nl.NewNetlinkRequest(tcpDiagGetSock, unix.NLM_F_DUMP)
	r.AddRawData(b)
	return r
}

// inetSocket reads struct inet_diag_msg: family, state, timer, retrans, then the
// identity (ports, addresses, link, cookie), then five words.
func inetSocket(protocol string, b []byte) (s Socket, ok bool) {
	const size = 72
	if len(b) < size {
		return s, false
	}
	s = Socket{
		Protocol: withFamily(protocol, int(b[0])), State: stateName(b[1]), Link: int(nativeU32(b[40:])),
		RQueue: nativeU32(b[56:]), WQueue: nativeU32(b[60:]), UID: nativeU32(b[64:]), Inode: nativeU32(b[68:]),
		Local:  addrPort(b[0], b[8:24], b[4:6]),
		Remote: addrPort(b[0], b[24:40], b[6:8]),
	}
	const inetDiagULPInfo, inetULPInfoName = 19, 1
	eachAttr(b[size:], func(kind uint16, v []byte) {
		if kind != inetDiagULPInfo {
			return
		}
		eachAttr(v, func(kind uint16, v []byte) {
			if kind == inetULPInfoName && cString(v) == "mptcp" {
				s.Protocol = "mptcp" // its subflow, with the same inode
			}
		})
	})
	return s, true
}

func addrPort(family byte, addr, port []byte) netip.AddrPort {
	if family == unix.AF_INET {
		addr = addr[:4]
	}
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

// unixSocket reads struct unix_diag_msg.
func unixSocket(b []byte) (s Socket, ok bool) {
	const size = 16
	if len(b) < size {
		return s, false
	}
	s = Socket{Protocol: "unix", State: stateName(b[2]), Type: socketType(b[1]), Inode: nativeU32(b[4:])}
	eachAttr(b[size:], func(kind uint16, v []byte) {
		switch kind {
		case 0: // UNIX_DIAG_NAME
			if s.Path = string(v); len(v) > 0 && v[0] == 0 {
				s.Path = "@" + string(v[1:])
			} else {
				s.Path = cString(v)
			}
		case 2: // UNIX_DIAG_PEER
			s.Peer = u32(v)
		case 4: // UNIX_DIAG_RQLEN
			if len(v) >= 8 {
				s.RQueue, s.WQueue = nativeU32(v), nativeU32(v[4:])
			}
		case 7: // UNIX_DIAG_UID
			s.UID = u32(v)
		}
	})
	return s, true
}

func socketType(t byte) string {
	switch t {
	case unix.SOCK_STREAM:
		return "stream"
	case unix.SOCK_DGRAM:
		return "dgram"
	case unix.SOCK_SEQPACKET:
		return "seqpacket"
	case unix.SOCK_RAW:
		return "raw"
	}
	return strconv.Itoa(int(t))
}

// packetSocketInfo reads struct packet_diag_msg.
func packetSocketInfo(b []byte) (s Socket, ok bool) {
	const size = 16
	if len(b) < size {
		return s, false
	}
	s = Socket{Protocol: "packet", State: stateName(stateClose), Type: socketType(b[1]), Inode: nativeU32(b[4:])}
	eachAttr(b[size:], func(kind uint16, v []byte) {
		switch kind {
		case 0: // PACKET_DIAG_INFO
			s.Link = int(u32(v))
		case 5: // PACKET_DIAG_UID
			s.UID = u32(v)
		}
	})
	return s, true
}

// netlinkSocket reads struct netlink_diag_msg, and leaves out the kernel's own.
func netlinkSocket(b []byte) (s Socket, ok bool) {
	if len(b) < 28 || nativeU32(b[4:]) == 0 || nativeU32(b[16:]) == 0 {
		return s, false
	}
	return Socket{Protocol: "netlink", State: stateName(stateClose), Type: strconv.Itoa(int(b[2])), Inode: nativeU32(b[16:])}, true
}

// vsockSocket reads struct vsock_diag_msg.
func vsockSocket(b []byte) (s Socket, ok bool) {
	if len(b) < 24 {
		return s, false
	}
	return Socket{Protocol: "vsock", State: stateName(b[2]), Type: socketType(b[1]), Inode: nativeU32(b[20:])}, true
}

// parseProcNet reads /proc/net/raw and its like (man 5 proc): a header line, then
//
//	sl: local remote st tx:rx tr:when retrnsmt uid timeout inode ...
func parseProcNet(protocol string, r io.Reader) (all []Socket, err error) {
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		f := strings.Fields(lines.Text())
		if first || len(f) == 0 {
			continue
		}
		if len(f) < 10 {
			return nil, fmt.Errorf("read %s sockets: line of %d fields", protocol, len(f))
		}
		s := Socket{Protocol: protocol}
		var err1, err2 error
		s.Local, err1 = parseProcAddr(f[1])
		s.Remote, err2 = parseProcAddr(f[2])
		state, err3 := strconv.ParseUint(f[3], 16, 8)
		tx, rx, _ := strings.Cut(f[4], ":")
		w, err4 := strconv.ParseUint(tx, 16, 32)
		q, err5 := strconv.ParseUint(rx, 16, 32)
		uid, err6 := strconv.ParseUint(f[7], 10, 32)
		inode, err7 := strconv.ParseUint(f[9], 10, 32)
		if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
			return nil, fmt.Errorf("read %s sockets: %w", protocol, err)
		}
		s.State, s.WQueue, s.RQueue, s.UID, s.Inode = stateName(byte(state)), uint32(w), uint32(q), uint32(uid), uint32(inode)
		all = append(all, s)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s sockets: %w", protocol, err)
	}
	return all, nil
}

// parseProcAddr reads 0100007F:0050: words in host order, the port as a number.
func parseProcAddr(s string) (netip.AddrPort, error) {
	addr, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("address %q", s)
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}
