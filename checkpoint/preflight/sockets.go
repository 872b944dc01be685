package preflight

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// sockets are those that the container's processes hold, by inode.
type sockets struct {
	tcp, udp, unix, netlink map[uint64]holder
	kinds                   map[string]bool // the protocols' names
}

// holder is the first process found to hold a socket.
type holder struct {
	p *process
	d *descriptor
}

func (h holder) before(o holder) bool {
	return h.p.pid < o.p.pid || h.p.pid == o.p.pid && h.d.fd < o.d.fd
}

// noteSocket judges a socket by its protocol, and keeps those that the kernel
// has to be asked about.
func (l *look) noteSocket(p *process, d *descriptor) {
	if f, none := socketKind(d.proto); !none {
		l.add(p, d, f)
		return
	}
	var m *map[uint64]holder
	switch d.proto {
	case "TCP", "TCPv6":
		m = &l.sockets.tcp
	case "UDP", "UDPv6", "UDP-Lite", "UDPLITEv6":
		m = &l.sockets.udp
	case "UNIX", "UNIX-STREAM":
		m = &l.sockets.unix
	case "NETLINK":
		m = &l.sockets.netlink
	default:
		return
	}
	if *m == nil {
		*m = map[uint64]holder{}
	}
	if l.sockets.kinds == nil {
		l.sockets.kinds = map[string]bool{}
	}
	l.sockets.kinds[d.proto] = true
	if _, known := (*m)[d.ino]; !known {
		(*m)[d.ino] = holder{p, d}
	}
}

// judgeSockets asks the kernel about the sockets' states, and only about those
// kinds that there are.
func (l *look) judgeSockets() error {
	s := &l.sockets
	if len(s.tcp) > 0 && !l.s.Given.TCPClose {
		l.needs.TCPEstablished = true
	}
	if len(s.tcp) > 0 {
		l.needs.SkipInFlight = true
	}
	if len(s.tcp)+len(s.udp)+len(s.unix)+len(s.netlink) == 0 {
		return nil
	}
	d, err := diagnose(l.s.NetNS)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, ask := range []struct {
		any   bool
		judge func(*diagnosis) error
	}{
		{len(s.tcp) > 0, l.judgeTCP}, {len(s.udp) > 0, l.judgeUDP},
		{len(s.unix) > 0, l.judgeUnix}, {len(s.netlink) > 0, l.judgeNetlink},
	} {
		if !ask.any {
			continue
		}
		if err := ask.judge(d); err != nil && !errors.Is(err, errNoDiagnosis) {
			return fmt.Errorf("inspect sockets: %w", err)
		}
	}
	return nil
}

// The states of include/net/tcp_states.h that sock_diag(7) shows, also of unix
// sockets.
const (
	stateEstablished = 1
	stateClose       = 7
	stateListen      = 10
)

// eachInet lists the sockets of those of the protocols that the container has
// any of: for TCP the kernel walks the whole host's table each time.
func (l *look) eachInet(d *diagnosis, visit func(inetSocket), names ...string) error {
	for _, name := range names {
		if !l.sockets.kinds[name] {
			continue
		}
		family, protocol := inetProtocol(name)
		err := d.list(inetRequest(family, protocol), func(b []byte) error {
			s, err := parseInet(b)
			if err == nil && s.ino != 0 { // those that nobody holds have none
				visit(s)
			}
			return err
		})
		if err != nil && !errors.Is(err, errNoDiagnosis) {
			return err
		}
	}
	return nil
}

func inetProtocol(name string) (family, protocol uint8) {
	switch name {
	case "TCP":
		return unix.AF_INET, unix.IPPROTO_TCP
	case "TCPv6":
		return unix.AF_INET6, unix.IPPROTO_TCP
	case "UDP":
		return unix.AF_INET, unix.IPPROTO_UDP
	case "UDPv6":
		return unix.AF_INET6, unix.IPPROTO_UDP
	case "UDP-Lite":
		return unix.AF_INET, unix.IPPROTO_UDPLITE
	}
	return unix.AF_INET6, unix.IPPROTO_UDPLITE
}

func (l *look) judgeTCP(d *diagnosis) error {
	live, first := 0, holder{}
	visit := func(s inetSocket) {
		h, ours := l.sockets.tcp[s.ino]
		if !ours {
			return
		}
		switch {
		case s.state == stateListen:
			l.judgeListener(h, s)
			return
		case s.state == stateClose:
			return
		}
		if live++; live == 1 || h.before(first) {
			first = h
		}
		if s.ulp != "" {
			// Neither CRIU nor its libsoccr knows of what lies on top of TCP.
			l.add(h.p, h.d, Finding{Kind: "tcp-ulp", Blocks: true, What: fmt.Sprintf("CRIU cannot save what the kernel does on top of this TCP connection (%s)", s.ulp),
				Remedy: "end the connection, or start the program without kernel TLS"})
		}
		if s.md5 {
			l.add(h.p, h.d, Finding{Kind: "tcp-md5", Lost: true, What: "the TCP connection is signed with a key that CRIU does not save", Remedy: "the program has to connect again"})
		}
	}
	if err := l.eachInet(d, visit, "TCP", "TCPv6"); err != nil {
		return err
	}
	switch {
	case live == 0 || l.s.Given.TCPClose:
	case l.s.UserNS:
		// tcp_can_repair_sock in net/ipv4/tcp.c asks for CAP_NET_ADMIN over the
		// network namespace, which was made outside; the restored task, which
		// sets TCP_REPAIR, has capabilities in its own user namespace only.
		l.add(first.p, first.d, Finding{Kind: "tcp-user-namespace", Blocks: true,
			What:   plural(live, "TCP connection is open", "TCP connections are open") + ", and CRIU cannot bring that back into a user namespace",
			Remedy: "give them up with --tcp-close"})
	case !l.s.Given.TCPEstablished:
		l.add(first.p, first.d, Finding{Kind: "tcp-established", What: plural(live, "TCP connection is open and is kept", "TCP connections are open and are kept")})
	}
	return nil
}

func (l *look) judgeListener(h holder, s inetSocket) {
	if s.received == 0 || l.s.Given.SkipInFlight {
		return
	}
	l.add(h.p, h.d, Finding{Kind: "tcp-in-flight", Lost: true,
		What: plural(int(s.received), "connection waits to be accepted, and is dropped", "connections wait to be accepted, and are dropped")})
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func (l *look) judgeUDP(d *diagnosis) error {
	visit := func(s inetSocket) {
		if h, ours := l.sockets.udp[s.ino]; ours && s.received > 0 {
			// criu/sk-inet.c, can_dump_inet_sk: "Read queue is dropped".
			l.add(h.p, h.d, Finding{Kind: "udp-queue", Lost: true, What: "datagrams have come that the program has not read, and are dropped"})
		}
	}
	return l.eachInet(d, visit, "UDP", "UDPv6", "UDP-Lite", "UDPLITEv6")
}

// judgeNetlink follows criu/sk-netlink.c, dump_one_netlink_fd.
func (l *look) judgeNetlink(d *diagnosis) error {
	seen := map[uint64]bool{} // one that listens to groups is listed twice
	return d.list(netlinkRequest(), func(b []byte) error {
		s, err := parseNetlink(b)
		if err != nil {
			return err
		}
		h, ours := l.sockets.netlink[s.ino]
		if !ours || seen[s.ino] {
			return nil
		}
		seen[s.ino] = true
		f := Finding{Blocks: true}
		switch {
		case s.received > 0:
			f.Kind, f.What, f.Remedy = "netlink-data", "CRIU cannot save a netlink socket with messages in it", "let the program read them first"
		case highGroup(s.groups):
			f.Kind, f.What, f.Remedy = "netlink-groups", "CRIU cannot save a netlink socket that listens to a group above 32", closeFirst
		default:
			return nil
		}
		l.add(h.p, h.d, f)
		return nil
	})
}

// highGroup tells whether the bit set holds one that does not fit into the
// struct sockaddr_nl with which CRIU binds the socket again.
func highGroup(groups []byte) bool {
	for i, b := range groups {
		// The kernel's set is made of longs: on a big-endian machine the first
		// 32 are in the second half of the first one.
		at := i
		if bigEndian() && i < 8 {
			at = i ^ 4
		}
		if at >= 4 && b != 0 {
			return true
		}
	}
	return false
}

// shown is a unix socket's name for people.
func (s unixSocket) shown() string {
	if strings.HasPrefix(s.name, "\x00") {
		return "@" + s.name[1:]
	}
	return strings.TrimRight(s.name, "\x00")
}
