package preflight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"crucible/container/network"
)

// The messages of sock_diag(7), as CRIU asks for them (criu/sockets.c,
// collect_sockets): include/uapi/linux/{inet,unix,netlink}_diag.h.

const sockDiagByFamily = 20

// inetSocket is a TCP or UDP socket.
type inetSocket struct {
	ino      uint64
	state    uint8
	received uint32 // bytes; for a listening socket, connections to be accepted
	ulp      string // what was put on top of TCP: "tls"
	md5      bool   // segments are signed (RFC 2385)
}

// unixSocket is one of the domain AF_UNIX.
type unixSocket struct {
	ino, peer uint64
	kind      uint8 // SOCK_STREAM, ...
	state     uint8
	name      string   // an abstract one starts with a NUL
	pending   []uint64 // of a listening one: those that wait to be accepted, 0 for one closed already
	received  uint32
	sent      uint32 // and not yet read by the other side
	shut      uint8
}

// netlinkSocket is one of the domain AF_NETLINK.
type netlinkSocket struct {
	ino      uint64
	protocol uint8
	port     uint32
	groups   []byte // a bit set
	received uint32
}

// diagnosis asks the kernel about the sockets of a network namespace.
type diagnosis struct {
	fd  int
	buf []byte
}

// diagnose opens the way to ask; ns nil is the host's.
func diagnose(ns *os.File) (*diagnosis, error) {
	d := &diagnosis{fd: -1}
	err := network.Do(ns, func() (err error) {
		d.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open socket diagnosis: %w", err)
	}
	d.buf = make([]byte, 32<<10) // the most that the kernel puts into one answer
	return d, nil
}

func (d *diagnosis) Close() error { return unix.Close(d.fd) }

// errNoDiagnosis says that the kernel has no module for the family. CRIU needs
// it as well, and says so.
var errNoDiagnosis = errors.New("the kernel cannot list these sockets")

// list sends a request and hands each answer to visit.
func (d *diagnosis) list(request []byte, visit func(message []byte) error) error {
	header := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(request))
	binary.NativeEndian.PutUint32(header[0:], uint32(unix.NLMSG_HDRLEN+len(request)))
	binary.NativeEndian.PutUint16(header[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(header[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if _, err := unix.Write(d.fd, append(header, request...)); err != nil {
		return err
	}
	for {
		n, err := unix.Read(d.fd, d.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		done, err := eachMessage(d.buf[:n], visit)
		if done || err != nil {
			return err
		}
	}
}

// eachMessage walks through what one read gave; done is the end of the list.
func eachMessage(data []byte, visit func([]byte) error) (done bool, err error) {
	for len(data) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(data))
		if size < unix.NLMSG_HDRLEN || size > len(data) {
			return false, fmt.Errorf("netlink: a message of %d bytes in %d", size, len(data))
		}
		body := data[unix.NLMSG_HDRLEN:size]
		switch binary.NativeEndian.Uint16(data[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errors.New("netlink: a short error")
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			if errno == unix.ENOENT || errno == unix.EINVAL {
				return false, errNoDiagnosis
			}
			return errno == 0, errnoOrNil(errno)
		default:
			if err := visit(body); err != nil {
				return false, err
			}
		}
		data = data[min(len(data), (size+3)&^3):]
	}
	return false, nil
}

func errnoOrNil(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// eachAttribute walks through the attributes that follow a message's header.
func eachAttribute(data []byte, visit func(kind uint16, value []byte)) error {
	for len(data) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return fmt.Errorf("netlink: an attribute of %d bytes in %d", size, len(data))
		}
		visit(binary.NativeEndian.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[unix.SizeofRtAttr:size])
		data = data[min(len(data), (size+3)&^3):]
	}
	return nil
}

func inetRequest(family, protocol uint8) []byte {
	r := make([]byte, 56) // struct inet_diag_req_v2
	r[0], r[1] = family, protocol
	if protocol == unix.IPPROTO_TCP {
		r[2] = 1 << (2 - 1) // INET_DIAG_INFO: without it the kernel tells of no key and no ULP
	}
	binary.NativeEndian.PutUint32(r[4:], 1<<32-1) // every state
	return r
}

func parseInet(b []byte) (inetSocket, error) {
	const header = 72 // struct inet_diag_msg
	if len(b) < header {
		return inetSocket{}, fmt.Errorf("inet_diag: %d bytes", len(b))
	}
	s := inetSocket{state: b[1], received: binary.NativeEndian.Uint32(b[56:]), ino: uint64(binary.NativeEndian.Uint32(b[68:]))}
	err := eachAttribute(b[header:], func(kind uint16, value []byte) {
		switch kind {
		case 18: // INET_DIAG_MD5SIG
			s.md5 = len(value) > 0
		case 19: // INET_DIAG_ULP_INFO
			_ = eachAttribute(value, func(kind uint16, value []byte) {
				if kind == 1 { // INET_ULP_INFO_NAME
					s.ulp = text(value)
				}
			})
		}
	})
	return s, err
}

func unixRequest() []byte {
	r := make([]byte, 24) // struct unix_diag_req
	r[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(r[4:], 1<<32-1)
	binary.NativeEndian.PutUint32(r[12:], 1|4|8|16) // UDIAG_SHOW_ NAME, PEER, ICONS, RQLEN
	return r
}

func parseUnix(b []byte) (unixSocket, error) {
	const header = 16 // struct unix_diag_msg
	if len(b) < header {
		return unixSocket{}, fmt.Errorf("unix_diag: %d bytes", len(b))
	}
	s := unixSocket{kind: b[1], state: b[2], ino: uint64(binary.NativeEndian.Uint32(b[4:]))}
	err := eachAttribute(b[header:], func(kind uint16, value []byte) {
		switch {
		case kind == 0: // UNIX_DIAG_NAME
			s.name = string(value)
		case kind == 2 && len(value) >= 4: // UNIX_DIAG_PEER
			s.peer = uint64(binary.NativeEndian.Uint32(value))
		case kind == 3: // UNIX_DIAG_ICONS
			for ; len(value) >= 4; value = value[4:] {
				s.pending = append(s.pending, uint64(binary.NativeEndian.Uint32(value)))
			}
		case kind == 4 && len(value) >= 8: // UNIX_DIAG_RQLEN
			s.received, s.sent = binary.NativeEndian.Uint32(value), binary.NativeEndian.Uint32(value[4:])
		case kind == 6 && len(value) >= 1: // UNIX_DIAG_SHUTDOWN
			s.shut = value[0]
		}
	})
	return s, err
}

func netlinkRequest() []byte {
	r := make([]byte, 20)                     // struct netlink_diag_req
	r[0], r[1] = unix.AF_NETLINK, 255         // NDIAG_PROTO_ALL
	binary.NativeEndian.PutUint32(r[8:], 1|2) // NDIAG_SHOW_ MEMINFO, GROUPS
	return r
}

func parseNetlink(b []byte) (netlinkSocket, error) {
	const header = 28 // struct netlink_diag_msg
	if len(b) < header {
		return netlinkSocket{}, fmt.Errorf("netlink_diag: %d bytes", len(b))
	}
	s := netlinkSocket{protocol: b[2], port: binary.NativeEndian.Uint32(b[4:]), ino: uint64(binary.NativeEndian.Uint32(b[16:]))}
	err := eachAttribute(b[header:], func(kind uint16, value []byte) {
		switch {
		case kind == 0 && len(value) >= 4: // NETLINK_DIAG_MEMINFO, of which the first is SK_MEMINFO_RMEM_ALLOC
			s.received = binary.NativeEndian.Uint32(value)
		case kind == 1: // NETLINK_DIAG_GROUPS
			s.groups = append([]byte(nil), value...)
		}
	})
	return s, err
}

func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
