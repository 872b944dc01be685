package fingerprint

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/network"
)

// takeSockets adds what sock_diag(7) tells: the state of each socket, what waits
// in its queues, and options. Those that nobody holds any more are facts, too:
// what a program has written before it closed a connection is still on its way.
func (t *taker) takeSockets() {
	families := map[string]bool{} // only what is there is asked for: for TCP the kernel walks the host's table
	for o, h := range t.holders {
		if o.kind == "socket" {
			families[protocolOf(h)] = true
		}
	}
	for _, k := range []struct {
		names            []string
		family, protocol uint8
	}{
		{[]string{"TCP"}, unix.AF_INET, unix.IPPROTO_TCP}, {[]string{"TCPv6"}, unix.AF_INET6, unix.IPPROTO_TCP},
		{[]string{"UDP"}, unix.AF_INET, unix.IPPROTO_UDP}, {[]string{"UDPv6"}, unix.AF_INET6, unix.IPPROTO_UDP},
		{[]string{"UDP-Lite"}, unix.AF_INET, unix.IPPROTO_UDPLITE}, {[]string{"UDPLITEv6"}, unix.AF_INET6, unix.IPPROTO_UDPLITE},
		{[]string{"RAW"}, unix.AF_INET, unix.IPPROTO_RAW}, {[]string{"RAWv6"}, unix.AF_INET6, unix.IPPROTO_RAW},
	} {
		tcp := k.protocol == unix.IPPROTO_TCP && t.subject.NetNS != nil
		if families[k.names[0]] || tcp {
			t.diagnose(k.names[0], inetRequest(k.family, k.protocol), t.inetFacts)
		}
	}
	if families["UNIX"] || families["UNIX-STREAM"] {
		t.diagnose("unix", unixRequest(), t.unixFacts)
	}
	if families["NETLINK"] {
		t.diagnose("netlink", netlinkRequest(), t.netlinkFacts)
	}
	if families["PACKET"] {
		t.diagnose("packet", packetRequest(), t.packetFacts)
	}
}

func (t *taker) diagnose(what string, request []byte, facts func(string, []byte) error) {
	answers, err := network.Diagnose(t.subject.NetNS, request)
	if err != nil {
		t.cannot("socket/"+what, err)
		return
	}
	for _, a := range answers {
		if err := facts(what, a); err != nil {
			t.cannot("socket/"+what, err)
		}
	}
}

// protocolOf is the kernel's name for a socket's protocol (net/socket.c,
// sockfs_xattr_get): "TCP", "UNIX-STREAM".
func protocolOf(h holder) string {
	var buf [64]byte
	n, err := unix.Getxattr(h.p.path("fd/"+strconv.Itoa(h.d.fd)), "system.sockprotoname", buf[:])
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(string(buf[:n]), "\x00")
	return name
}

// socketName finds the name of a socket by its inode; "" is nobody's.
func (t *taker) socketName(inode uint64) string {
	for o, name := range t.names {
		if o.kind == "socket" && o.ino == inode {
			return name
		}
	}
	return ""
}

func inetRequest(family, protocol uint8) []byte {
	r := make([]byte, 56) // struct inet_diag_req_v2
	r[0], r[1] = family, protocol
	// A bit for each extension that is wanted, from INET_DIAG_MEMINFO (1) on to
	// INET_DIAG_SHUTDOWN (8): INFO, VEGASINFO (not), CONG, TOS, TCLASS,
	// SKMEMINFO, SHUTDOWN.
	r[2] = 1<<(2-1) | 1<<(4-1) | 1<<(5-1) | 1<<(6-1) | 1<<(7-1) | 1<<(8-1)
	binary.NativeEndian.PutUint32(r[4:], 1<<32-1) // every state
	return r
}

var errShort = errors.New("a short message")

// inetFacts reads struct inet_diag_msg and its attributes.
func (t *taker) inetFacts(what string, b []byte) error {
	const header = 72
	if len(b) < header {
		return errShort
	}
	ports := binary.BigEndian.Uint32(b[4:])
	source, _ := netip.AddrFromSlice(addressBytes(b[0], b[8:24]))
	destination, _ := netip.AddrFromSlice(addressBytes(b[0], b[24:40]))
	local := netip.AddrPortFrom(source, uint16(ports>>16))
	peer := netip.AddrPortFrom(destination, uint16(ports))
	inode := uint64(binary.NativeEndian.Uint32(b[68:]))
	name := t.socketName(inode)
	switch {
	case name != "":
	case t.subject.NetNS == nil:
		return nil // another's
	default:
		name = fmt.Sprintf("socket/unowned %s %s %s", what, local, peer)
	}
	state := b[1]
	note := ""
	if strings.HasPrefix(what, "TCP") {
		note = connectionNote(state)
	}
	t.note(name+"/protocol", what, note)
	t.note(name+"/state", socketState(state), note)
	t.note(name+"/local", local.String(), note)
	t.note(name+"/peer", peer.String(), note)
	t.note(name+"/timer", strconv.Itoa(int(b[2])), note)
	t.note(name+"/retransmits", strconv.Itoa(int(b[3])), note)
	t.note(name+"/interface", strconv.Itoa(int(binary.NativeEndian.Uint32(b[40:]))), note)
	t.note(name+"/receive-queue", strconv.Itoa(int(binary.NativeEndian.Uint32(b[56:]))), note)
	t.note(name+"/send-queue", strconv.Itoa(int(binary.NativeEndian.Uint32(b[60:]))), note)
	t.note(name+"/uid", strconv.Itoa(int(binary.NativeEndian.Uint32(b[64:]))), note)
	network.EachAttribute(b[header:], func(kind uint16, value []byte) {
		key := name + "/" + inetAttribute(kind)
		switch kind {
		case 2: // INET_DIAG_INFO
			if strings.HasPrefix(what, "TCP") {
				t.tcpInfo(name, note, value)
			}
		case 7: // INET_DIAG_SKMEMINFO
			t.memInfo(name, note, value)
		default:
			t.note(key, attributeText(value), note)
		}
	})
	return nil
}

func addressBytes(family uint8, b []byte) []byte {
	if family == unix.AF_INET {
		return b[:4]
	}
	return b[:16]
}

// inetAttribute names those of include/uapi/linux/inet_diag.h.
func inetAttribute(kind uint16) string {
	names := []string{"", "meminfo", "info", "vegas", "congestion", "tos", "tclass", "skmeminfo", "shutdown", "dctcp", "protocol", "v6only", "locals", "peers",
		"pad", "mark", "bbr", "class-id", "md5", "ulp", "storages", "cgroup-id", "options"}
	if int(kind) < len(names) {
		return names[kind]
	}
	return strconv.Itoa(int(kind))
}

// memInfo adds the sizes of the buffers, SK_MEMINFO_RCVBUF and SNDBUF, and
// whether packets were dropped, SK_MEMINFO_DROPS.
func (t *taker) memInfo(name, note string, b []byte) {
	for i, key := range []string{"receive-allocated", "receive-buffer", "send-allocated", "send-buffer", "forward-allocated", "write-queued", "options-memory", "backlog", "drops"} {
		if len(b) >= 4*(i+1) {
			t.note(name+"/"+key, strconv.Itoa(int(binary.NativeEndian.Uint32(b[4*i:]))), note)
		}
	}
}

// tcpInfo adds what was agreed upon when the connection was made. Most of
// struct tcp_info is measured as the connection goes, and begins anew.
func (t *taker) tcpInfo(name, note string, b []byte) {
	if len(b) < 8 {
		return
	}
	t.note(name+"/tcp-options", fmt.Sprintf("%#x", b[5]), note) // tcpi_options: TIMESTAMPS, SACK, WSCALE, ECN
	t.note(name+"/window-scales", fmt.Sprintf("%d and %d", b[6]&15, b[6]>>4), note)
}

// connectionNote marks what tells of a TCP connection, or of what may have been one.
func connectionNote(state uint8) string {
	switch socketState(state) {
	case "listen":
		return ""
	case "closed":
		return "closed"
	}
	return "connection"
}

func socketState(state uint8) string {
	names := []string{"", "established", "syn-sent", "syn-received", "fin-wait-1", "fin-wait-2", "time-wait", "closed", "close-wait", "last-ack", "listen", "closing", "new-syn-received"}
	if int(state) < len(names) {
		return names[state]
	}
	return strconv.Itoa(int(state))
}

func unixRequest() []byte {
	r := make([]byte, 24) // struct unix_diag_req
	r[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(r[4:], 1<<32-1)
	binary.NativeEndian.PutUint32(r[12:], 1|2|4|8|16|32|64) // UDIAG_SHOW_ NAME, VFS, PEER, ICONS, RQLEN, MEMINFO, UID
	return r
}

// unixFacts reads struct unix_diag_msg and its attributes.
func (t *taker) unixFacts(_ string, b []byte) error {
	const header = 16
	if len(b) < header {
		return errShort
	}
	name := t.socketName(uint64(binary.NativeEndian.Uint32(b[4:])))
	if name == "" {
		return nil // of another container, or on its way to an accept
	}
	t.put(name+"/protocol", fmt.Sprintf("unix, type %d", b[1]))
	t.put(name+"/state", socketState(b[2]))
	network.EachAttribute(b[header:], func(kind uint16, v []byte) {
		switch {
		case kind == 0: // UNIX_DIAG_NAME
			t.put(name+"/name", strconv.Quote(string(v)))
		case kind == 1: // UNIX_DIAG_VFS: inode and device of the name
			t.put(name+"/name-inode", hex.EncodeToString(v))
		case kind == 2 && len(v) >= 4: // UNIX_DIAG_PEER
			peer := t.socketName(uint64(binary.NativeEndian.Uint32(v)))
			if peer == "" {
				peer = "outside, or not accepted yet"
			}
			t.put(name+"/peer", peer)
		case kind == 3: // UNIX_DIAG_ICONS
			t.put(name+"/to-be-accepted", strconv.Itoa(len(v)/4))
		case kind == 4 && len(v) >= 8: // UNIX_DIAG_RQLEN
			t.put(name+"/receive-queue", strconv.Itoa(int(binary.NativeEndian.Uint32(v))))
			t.put(name+"/send-queue", strconv.Itoa(int(binary.NativeEndian.Uint32(v[4:]))))
		case kind == 5: // UNIX_DIAG_MEMINFO
			t.memInfo(name, "", v)
		case kind == 6 && len(v) >= 1: // UNIX_DIAG_SHUTDOWN
			t.put(name+"/shutdown", strconv.Itoa(int(v[0])))
		case kind == 7 && len(v) >= 4: // UNIX_DIAG_UID
			t.put(name+"/uid", strconv.Itoa(int(binary.NativeEndian.Uint32(v))))
		default:
			t.put(name+"/"+strconv.Itoa(int(kind)), attributeText(v))
		}
	})
	return nil
}

func netlinkRequest() []byte {
	r := make([]byte, 20)                       // struct netlink_diag_req
	r[0], r[1] = unix.AF_NETLINK, 255           // NDIAG_PROTO_ALL
	binary.NativeEndian.PutUint32(r[8:], 1|2|8) // NDIAG_SHOW_ MEMINFO, GROUPS, FLAGS
	return r
}

// netlinkFacts reads struct netlink_diag_msg and its attributes.
func (t *taker) netlinkFacts(_ string, b []byte) error {
	const header = 28
	if len(b) < header {
		return errShort
	}
	name := t.socketName(uint64(binary.NativeEndian.Uint32(b[16:])))
	if name == "" {
		return nil
	}
	if _, known := t.byKey[name+"/protocol"]; known {
		return nil // one that listens to groups is listed twice
	}
	t.put(name+"/protocol", fmt.Sprintf("netlink %d, type %d", b[2], b[1]))
	t.put(name+"/state", strconv.Itoa(int(b[3])))
	t.put(name+"/port", t.portName(binary.NativeEndian.Uint32(b[4:])))
	t.put(name+"/peer-port", t.portName(binary.NativeEndian.Uint32(b[8:])))
	t.put(name+"/peer-group", strconv.Itoa(int(binary.NativeEndian.Uint32(b[12:]))))
	network.EachAttribute(b[header:], func(kind uint16, v []byte) {
		switch kind {
		case 0:
			t.memInfo(name, "", v)
		case 1:
			t.put(name+"/groups", hex.EncodeToString(v))
		case 4:
			t.put(name+"/flags", attributeText(v))
		default:
			t.put(name+"/"+strconv.Itoa(int(kind)), attributeText(v))
		}
	})
	return nil
}

// portName: a netlink socket's port is mostly the pid of who made it.
func (t *taker) portName(port uint32) string { return strconv.FormatUint(uint64(port), 10) }

func packetRequest() []byte {
	r := make([]byte, 20) // struct packet_diag_req
	r[0] = unix.AF_PACKET
	binary.NativeEndian.PutUint32(r[8:], 1|2|4|8|16|32) // PACKET_SHOW_ INFO, MCLIST, RING_CFG, FANOUT, MEMINFO, FILTER
	return r
}

// packetFacts reads struct packet_diag_msg and its attributes.
func (t *taker) packetFacts(_ string, b []byte) error {
	const header = 16
	if len(b) < header {
		return errShort
	}
	name := t.socketName(uint64(binary.NativeEndian.Uint32(b[4:])))
	if name == "" {
		return nil
	}
	t.put(name+"/protocol", fmt.Sprintf("packet %#x, type %d", binary.NativeEndian.Uint16(b[2:]), b[1]))
	network.EachAttribute(b[header:], func(kind uint16, v []byte) {
		if kind == 6 { // PACKET_DIAG_MEMINFO
			t.memInfo(name, "", v)
			return
		}
		t.put(fmt.Sprintf("%s/%d", name, kind), attributeText(v))
	})
	return nil
}

func attributeText(b []byte) string {
	if n := len(b); n > 1 && b[n-1] == 0 && strings.IndexFunc(string(b[:n-1]), func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		return string(b[:n-1])
	}
	switch len(b) {
	case 1:
		return strconv.Itoa(int(b[0]))
	case 4:
		return strconv.FormatUint(uint64(binary.NativeEndian.Uint32(b)), 10)
	}
	return hex.EncodeToString(b)
}
