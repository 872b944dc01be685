package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Socket is one socket of a namespace, as sock_diag(7) shows it.
type Socket struct {
	Protocol string         `json:"protocol"` // tcp, udp, raw, icmp (also with a 6), mptcp, packet, unix, netlink, vsock
	State    string         `json:"state"`    // established, listen, close, ...
	Type     string         `json:"type,omitempty"`
	Local    netip.AddrPort `json:"local,omitzero"`
	Remote   netip.AddrPort `json:"remote,omitzero"`
	Path     string         `json:"path,omitempty"` // of a unix socket; an abstract one begins with @
	Link     int            `json:"link,omitempty"` // the index of the link it is bound to
	Inode    uint32         `json:"inode"`          // as in /proc/PID/fd: socket:[N]
	Peer     uint32         `json:"peer,omitempty"` // the other end's inode of a unix socket
	UID      uint32         `json:"uid,omitempty"`
	RQueue   uint32         `json:"rqueue,omitempty"` // bytes not read; of a listener, connections not accepted
	WQueue   uint32         `json:"wqueue,omitempty"` // bytes not acknowledged; of a listener, its backlog
}

func (s Socket) String() string {
	switch {
	case s.Protocol == "unix":
		return fmt.Sprintf("unix %s %s %s", s.Type, s.State, s.Path)
	case s.Remote.IsValid() && s.Remote.Port() != 0:
		return fmt.Sprintf("%s %s %s -> %s", s.Protocol, s.State, s.Local, s.Remote)
	}
	return fmt.Sprintf("%s %s %s", s.Protocol, s.State, s.Local)
}

// Connected reports whether a TCP peer counts on this socket.
func (s Socket) Connected() bool {
	switch s.Protocol {
	case "tcp", "tcp6", "mptcp":
		return s.State != "listen" && s.State != "close"
	}
	return false
}

// Sockets lists the sockets of a namespace. It takes 0.5 ms, half of which is
// one walk of the kernel's table of established connections (262,144 buckets on the
// machine where it was measured).
//
// What has no process any more is left out (TIME_WAIT, half-open requests). A
// kernel built without a *_diag module is asked by /proc instead; only vsock
// has nothing there, so that its absence here proves nothing.
func Sockets(ns *os.File) (all []Socket, err error) {
	err = Do(ns, func() error {
		d, err := dial(unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return err
		}
		defer d.Close()
		if all, err = listSockets(d); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(d.fd, &st); err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(s Socket) bool { return s.Inode == uint32(st.Ino) }) // our own
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	return all, nil
}

// HasEstablishedTCP reports whether there is a TCP connection, in any state in
// which a peer counts on it. 0.25 ms.
func HasEstablishedTCP(ns *os.File) (found bool, err error) {
	err = Do(ns, func() error {
		d, err := dial(unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return err
		}
		defer d.Close()
		all, err := inetSockets(d, "tcp", tcpRequest(allStates&^(1<<stateListen|1<<stateClose)))
		found = len(all) > 0
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look for TCP connections: %w", err)
	}
	return found, nil
}

// BoundTo counts the sockets that belong to one address of a namespace: TCP
// listeners and UDP sockets bound to it, and UDP sockets connected from it. It
// takes 0.1 ms: the kernel's table of TCP connections is not walked.
func BoundTo(ns *os.File, address netip.Addr) (bound, connectedUDP int, err error) {
	var all []Socket
	err = Do(ns, func() error {
		d, err := dial(unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return err
		}
		defer d.Close()
		if all, err = inetSockets(d, "tcp", tcpRequest(1<<stateListen)); err != nil {
			return err
		}
		for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
			some, err := inetSockets(d, "udp", inetRequest(f, unix.IPPROTO_UDP))
			if err != nil {
				return err
			}
			all = append(all, some...)
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("list sockets of %s: %w", address, err)
	}
	for _, s := range all {
		switch {
		case s.Local.Addr() != address:
		case s.State == stateName(stateEstablished):
			connectedUDP++
		default:
			bound++
		}
	}
	return bound, connectedUDP, nil
}

// TCP's states, which the other protocols borrow (include/net/tcp_states.h).
const (
	stateEstablished = 1
	stateClose       = 7
	stateListen      = 10
	// All but TIME_WAIT (6) and NEW_SYN_RECV (12).
	allStates = 0xfff &^ (1 << 6)
)

func stateName(s byte) string {
	switch s {
	case 1:
		return "established"
	case 2:
		return "syn-sent"
	case 3:
		return "syn-recv"
	case 4:
		return "fin-wait-1"
	case 5:
		return "fin-wait-2"
	case stateClose:
		return "close"
	case 8:
		return "close-wait"
	case 9:
		return "last-ack"
	case stateListen:
		return "listen"
	case 11:
		return "closing"
	}
	return strconv.Itoa(int(s))
}

func listSockets(d *socket) (all []Socket, err error) {
	add := func(some []Socket, e error) {
		if all = append(all, some...); err == nil {
			err = e
		}
	}
	add(inetSockets(d, "tcp", tcpRequest(allStates)))
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		add(inetSockets(d, "udp", inetRequest(f, unix.IPPROTO_UDP)))
		some, e := inetSockets(d, "raw", inetRequest(f, unix.IPPROTO_RAW))
		if noDiag(e) {
			some, e = procSockets(withFamily("raw", f))
		}
		add(some, e)
		add(procSockets(withFamily("icmp", f))) // ping sockets have no diag module
	}
	for _, other := range []struct {
		request *nl.NetlinkRequest
		parse   func([]byte) (Socket, bool)
	}{
		{diagRequest(unix.AF_UNIX, 0, 24, allStates, 0, showUnix), unixSocket},
		{diagRequest(unix.AF_PACKET, 0, 20, 0, showPacketInfo), packetSocketInfo},
		{diagRequest(unix.AF_NETLINK, 0xff /* NDIAG_PROTO_ALL */, 20), netlinkSocket},
		{diagRequest(unix.AF_VSOCK, 0, 24, ^uint32(0)), vsockSocket},
	} {
		replies, e := d.list(other.request)
		if noDiag(e) {
			continue
		}
		if e != nil && err == nil {
			err = e
		}
		for _, r := range replies {
			if s, ok := other.parse(r.data); ok {
				all = append(all, s)
			}
		}
	}
	return all, err
}

// noDiag: the kernel has no module for this family or protocol.
func noDiag(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}

func withFamily(protocol string, family int) string {
	if family == unix.AF_INET6 {
		return protocol + "6"
	}
	return protocol
}

func inetSockets(d *socket, protocol string, r *nl.NetlinkRequest) ([]Socket, error) {
	replies, err := d.list(r)
	if err != nil {
		if protocol != "raw" && noDiag(err) {
			return nil, nil
		}
		return nil, err
	}
	var all []Socket
	for _, r := range replies {
		if s, ok := inetSocket(protocol, r.data); ok {
			all = append(all, s)
		}
	}
	return all, nil
}

func procSockets(name string) ([]Socket, error) {
	f, err := os.Open("/proc/thread-self/net/" + name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // no IPv6
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseProcNet(name, f)
}
