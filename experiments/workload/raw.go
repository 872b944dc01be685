package workload

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

func rawCases() []Case {
	return []Case{
		{Name: "netlink", Question: "Does a netlink socket keep its number and groups, and still answer?", Needs: []string{"sockets/netlink"}, program: netlink},
		{Name: "packet-socket", Question: "Does a packet socket still see the frames of its link?", Needs: []string{"sockets/packet", "sockets/udp"}, program: packetSocket},
		{Name: "raw-socket", Question: "Does a raw socket still send and receive its protocol?", Needs: []string{"criu/net_diag_raw"}, program: rawSocket},
	}
}

func netlink() (func() error, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, lacks("netlink", err, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT)
	}
	want := unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: 4711, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_ROUTE}
	if err := unix.Bind(fd, &want); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	return func() error {
		address, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		got := address.(*unix.SockaddrNetlink)
		if got.Pid != want.Pid || got.Groups != want.Groups {
			return fmt.Errorf("it is bound to %d, groups %#x", got.Pid, got.Groups)
		}
		// What is the first link?
		ask := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint32(ask, uint32(len(ask)))
		binary.NativeEndian.PutUint16(ask[4:], unix.RTM_GETLINK)
		binary.NativeEndian.PutUint16(ask[6:], unix.NLM_F_REQUEST)
		binary.NativeEndian.PutUint32(ask[unix.SizeofNlMsghdr+4:], 1)
		if err := first(unix.Sendto(fd, ask, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}), readable(fd)); err != nil {
			return err
		}
		b := make([]byte, 8192)
		n, err := unix.Read(fd, b)
		if err != nil || n < unix.SizeofNlMsghdr {
			return fmt.Errorf("an answer of %d bytes: %w", n, err)
		}
		return same("kind of the answer", binary.NativeEndian.Uint16(b[4:]), uint16(unix.RTM_NEWLINK))
	}, nil
}

// bigEndian is a number as the network has it.
func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

func packetSocket() (func() error, error) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, lacks("packet sockets", err, unix.EAFNOSUPPORT)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: lo.Index}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	_, connected, err := udpPair()
	return func() error {
		if err := send(connected, []byte("seen by all")); err != nil {
			return err
		}
		if err := readable(fd); err != nil {
			return err
		}
		b := make([]byte, 2000)
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return err
		}
		const headers = 14 + 20 + 8 // Ethernet, IP, UDP
		if address, ok := from.(*unix.SockaddrLinklayer); !ok || address.Ifindex != lo.Index || n < headers {
			return fmt.Errorf("a frame of %d bytes from %+v", n, from)
		}
		return same("frame", string(b[headers:n]), "seen by all")
	}, err
}

func rawSocket() (func() error, error) {
	const protocol = 253 // for experiments (RFC 3692)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, lacks("raw sockets", err, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT)
	}
	if err := unix.Bind(fd, loopback(unix.AF_INET, 0)); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	return func() error {
		if err := first(unix.Sendto(fd, []byte("raw"), 0, loopback(unix.AF_INET, 0)), readable(fd)); err != nil {
			return err
		}
		b := make([]byte, 100)
		n, err := unix.Read(fd, b)
		if err != nil || n < 20 {
			return fmt.Errorf("a packet of %d bytes: %w", n, err)
		}
		return first(same("protocol", b[9], byte(protocol)), same("packet", string(b[20:n]), "raw"))
	}, nil
}
