package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A socket is a netlink socket that belongs to one namespace.
//
// vishvananda/netlink sends one message per call and looks the link up again
// after each. Here several messages go down in one sendmsg(2): the kernel
// handles them in order and answers all of them before it returns, so a whole
// veth costs three system calls. Its nl package still builds the messages.
type socket struct {
	fd  int
	seq uint32
	buf []byte
}

// dial opens a netlink socket in the calling thread's namespace.
func dial(protocol int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// NETLINK_EXT_ACK: the kernel says in words what it dislikes.
	// NETLINK_CAP_ACK: an error does not quote the whole request.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &socket{fd: fd, buf: make([]byte, 32<<10)}, nil
}

// dialIn opens a netlink socket in ns; nil is where the caller is.
func dialIn(ns *os.File, protocol int) (*socket, error) {
	var s *socket
	err := Do(ns, func() (err error) {
		s, err = dial(protocol)
		return err
	})
	return s, err
}

func (s *socket) Close() { unix.Close(s.fd) }

// do sends the requests together. All of them are carried out, also those
// after one that failed; the first error is returned.
func (s *socket) do(reqs ...*nl.NetlinkRequest) error { return s.ask(nil, reqs...) }

// ask sends the requests together and gives every answer to f.
func (s *socket) ask(f func(reply), reqs ...*nl.NetlinkRequest) error {
	results, err := s.exchange(reqs, f)
	for _, e := range results {
		if err == nil {
			err = e
		}
	}
	return err
}

// try sends the requests together and returns what became of each.
func (s *socket) try(reqs ...*nl.NetlinkRequest) (results []error, err error) {
	// The answers wait in the socket's receive buffer, a few hundred at most.
	const together = 64
	for len(reqs) > 0 && err == nil {
		n := min(len(reqs), together)
		var some []error
		some, err = s.exchange(reqs[:n], nil)
		results, reqs = append(results, some...), reqs[n:]
	}
	return results, err
}

// list returns what a dump gives. A dump during which something changed is
// marked by the kernel (NLM_F_DUMP_INTR) and may lack entries: it is done again.
func (s *socket) list(req *nl.NetlinkRequest) (all []reply, err error) {
	for range 10 {
		all = all[:0]
		err = s.ask(func(r reply) {
			all = append(all, reply{r.kind, append([]byte(nil), r.data...)})
		}, req)
		if err != errInterrupted {
			break
		}
	}
	return all, err
}

// A reply is one netlink message that carries data. It is valid only while the
// function that got it runs.
type reply struct {
	kind uint16
	data []byte
}

func (s *socket) exchange(reqs []*nl.NetlinkRequest, f func(reply)) ([]error, error) {
	first := s.seq + 1
	var out []byte
	for _, r := range reqs {
		s.seq++
		r.Seq = s.seq
		if r.Flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
			r.Flags |= unix.NLM_F_ACK
		}
		out = append(out, r.Serialize()...)
	}
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send to netlink: %w", err)
	}
	failed := make([]error, len(reqs))
	for waiting := len(reqs); waiting > 0; {
		n, err := s.receive()
		if err != nil {
			return nil, err
		}
		for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			h := header(b)
			if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(b) {
				return nil, errors.New("receive from netlink: truncated message")
			}
			body := b[unix.SizeofNlMsghdr:h.Len]
			b = b[min(len(b), (int(h.Len)+3)&^3):]
			if h.Seq < first || h.Seq > s.seq {
				continue // an answer to an earlier request that was given up
			}
			i := h.Seq - first
			if h.Flags&unix.NLM_F_DUMP_INTR != 0 && failed[i] == nil {
				failed[i] = errInterrupted
			}
			switch h.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				waiting--
				if err := ackError(h, body); err != nil {
					failed[i] = err
				}
			default:
				if f != nil {
					f(reply{h.Type, body})
				}
			}
		}
	}
	return failed, nil
}

// errInterrupted: something changed between two parts of a dump.
var errInterrupted = errors.New("the kernel's list changed while it was read")

func (s *socket) receive() (int, error) {
	for {
		// MSG_TRUNC makes recvfrom return the full length of a datagram that
		// did not fit.
		n, _, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, fmt.Errorf("receive from netlink: %w", err)
		case n > len(s.buf):
			return 0, fmt.Errorf("receive from netlink: answer of %d bytes", n)
		}
		return n, nil
	}
}

func header(b []byte) unix.NlMsghdr {
	e := binary.NativeEndian
	return unix.NlMsghdr{Len: e.Uint32(b), Type: e.Uint16(b[4:]), Flags: e.Uint16(b[6:]), Seq: e.Uint32(b[8:]), Pid: e.Uint32(b[12:])}
}

// A kernelError is the errno of a netlink answer with the kernel's own words.
type kernelError struct {
	Errno unix.Errno
	Text  string
}

func (e *kernelError) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return e.Errno.Error() + " (" + e.Text + ")"
}

func (e *kernelError) Unwrap() error { return e.Errno }

// ackError reads an NLMSG_ERROR or NLMSG_DONE body: errno, the header of the
// request, then attributes (include/uapi/linux/netlink.h, struct nlmsgerr).
func ackError(h unix.NlMsghdr, body []byte) error {
	if len(body) < 4 {
		return nil
	}
	errno := int32(binary.NativeEndian.Uint32(body))
	if errno == 0 {
		return nil
	}
	e := &kernelError{Errno: unix.Errno(-errno)}
	attrs := 4
	if h.Type == unix.NLMSG_ERROR {
		attrs += unix.SizeofNlMsghdr
	}
	if h.Flags&unix.NLM_F_ACK_TLVS != 0 && attrs <= len(body) {
		eachAttr(body[attrs:], func(kind uint16, value []byte) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				e.Text = cString(value)
			}
		})
	}
	return e
}

// eachAttr walks a list of netlink attributes. What is malformed ends the walk.
func eachAttr(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		// The two top bits are NLA_F_NESTED and NLA_F_NET_BYTEORDER.
		f(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[unix.SizeofRtAttr:n])
		b = b[min(len(b), (n+3)&^3):]
	}
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
