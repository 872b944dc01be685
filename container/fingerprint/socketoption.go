package fingerprint

import (
	"encoding/hex"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketOption is one of setsockopt(2): its level and number. The size is the
// most that the kernel may give.
type socketOption struct {
	name          string
	level, number int
}

// socketOptions are those that a program sets and that can be asked for. Each
// kind of socket has only some.
func socketOptions() []socketOption {
	const so, tcp, ip, ipv6 = unix.SOL_SOCKET, unix.IPPROTO_TCP, unix.IPPROTO_IP, unix.IPPROTO_IPV6
	return []socketOption{
		{"type", so, unix.SO_TYPE}, {"domain", so, unix.SO_DOMAIN}, {"protocol-number", so, unix.SO_PROTOCOL}, {"accepting", so, unix.SO_ACCEPTCONN},
		{"reuseaddr", so, unix.SO_REUSEADDR}, {"reuseport", so, unix.SO_REUSEPORT}, {"keepalive", so, unix.SO_KEEPALIVE}, {"broadcast", so, unix.SO_BROADCAST},
		{"dontroute", so, unix.SO_DONTROUTE}, {"oobinline", so, unix.SO_OOBINLINE}, {"linger", so, unix.SO_LINGER}, {"no-check", so, unix.SO_NO_CHECK},
		{"priority", so, unix.SO_PRIORITY}, {"mark", so, unix.SO_MARK}, {"passcred", so, unix.SO_PASSCRED}, {"passsec", so, unix.SO_PASSSEC}, {"passpidfd", so, 76},
		{"timestamp", so, unix.SO_TIMESTAMP_OLD}, {"timestampns", so, unix.SO_TIMESTAMPNS_OLD}, {"timestamping", so, unix.SO_TIMESTAMPING_OLD},
		{"rcvlowat", so, unix.SO_RCVLOWAT}, {"rcvtimeo", so, unix.SO_RCVTIMEO_NEW}, {"sndtimeo", so, unix.SO_SNDTIMEO_NEW}, {"device", so, unix.SO_BINDTODEVICE},
		{"busy-poll", so, unix.SO_BUSY_POLL}, {"rxq-ovfl", so, unix.SO_RXQ_OVFL}, {"wifi-status", so, unix.SO_WIFI_STATUS}, {"peek-off", so, unix.SO_PEEK_OFF},
		{"lock-filter", so, unix.SO_LOCK_FILTER}, {"select-err-queue", so, unix.SO_SELECT_ERR_QUEUE}, {"zerocopy", so, unix.SO_ZEROCOPY}, {"txtime", so, unix.SO_TXTIME},
		{"buffer-lock", so, unix.SO_BUF_LOCK}, {"reserved-memory", so, unix.SO_RESERVE_MEM}, {"txrehash", so, unix.SO_TXREHASH}, {"filter", so, unix.SO_ATTACH_FILTER}, {"max-pacing-rate", so, unix.SO_MAX_PACING_RATE},
		{"tcp-nodelay", tcp, unix.TCP_NODELAY}, {"tcp-maxseg", tcp, unix.TCP_MAXSEG}, {"tcp-cork", tcp, unix.TCP_CORK}, {"tcp-keepidle", tcp, unix.TCP_KEEPIDLE},
		{"tcp-keepintvl", tcp, unix.TCP_KEEPINTVL}, {"tcp-keepcnt", tcp, unix.TCP_KEEPCNT}, {"tcp-syncnt", tcp, unix.TCP_SYNCNT}, {"tcp-linger2", tcp, unix.TCP_LINGER2},
		{"tcp-defer-accept", tcp, unix.TCP_DEFER_ACCEPT}, {"tcp-window-clamp", tcp, unix.TCP_WINDOW_CLAMP}, {"tcp-quickack", tcp, unix.TCP_QUICKACK}, {"tcp-congestion", tcp, unix.TCP_CONGESTION},
		{"tcp-thin-linear", tcp, unix.TCP_THIN_LINEAR_TIMEOUTS}, {"tcp-user-timeout", tcp, unix.TCP_USER_TIMEOUT}, {"tcp-fastopen", tcp, unix.TCP_FASTOPEN}, {"tcp-fastopen-connect", tcp, unix.TCP_FASTOPEN_CONNECT},
		{"tcp-notsent-lowat", tcp, unix.TCP_NOTSENT_LOWAT}, {"tcp-ulp", tcp, unix.TCP_ULP}, {"tcp-save-syn", tcp, unix.TCP_SAVE_SYN}, {"tcp-inq", tcp, unix.TCP_INQ}, {"tcp-tx-delay", tcp, unix.TCP_TX_DELAY},
		{"ip-tos", ip, unix.IP_TOS}, {"ip-ttl", ip, unix.IP_TTL}, {"ip-hdrincl", ip, unix.IP_HDRINCL}, {"ip-options", ip, unix.IP_OPTIONS}, {"ip-recvopts", ip, unix.IP_RECVOPTS},
		{"ip-pktinfo", ip, unix.IP_PKTINFO}, {"ip-mtu-discover", ip, unix.IP_MTU_DISCOVER}, {"ip-recverr", ip, unix.IP_RECVERR}, {"ip-recvttl", ip, unix.IP_RECVTTL}, {"ip-recvtos", ip, unix.IP_RECVTOS},
		{"ip-freebind", ip, unix.IP_FREEBIND}, {"ip-transparent", ip, unix.IP_TRANSPARENT}, {"ip-minttl", ip, unix.IP_MINTTL}, {"ip-multicast-if", ip, unix.IP_MULTICAST_IF}, {"ip-multicast-ttl", ip, unix.IP_MULTICAST_TTL},
		{"ip-multicast-loop", ip, unix.IP_MULTICAST_LOOP}, {"ip-multicast-all", ip, unix.IP_MULTICAST_ALL}, {"ip-unicast-if", ip, unix.IP_UNICAST_IF}, {"ip-bind-no-port", ip, unix.IP_BIND_ADDRESS_NO_PORT},
		{"ip-recvorigdstaddr", ip, unix.IP_RECVORIGDSTADDR}, {"ip-checksum", ip, unix.IP_CHECKSUM}, {"ip-local-port-range", ip, unix.IP_LOCAL_PORT_RANGE}, {"ip-nodefrag", ip, unix.IP_NODEFRAG},
		{"ipv6-v6only", ipv6, unix.IPV6_V6ONLY}, {"ipv6-unicast-hops", ipv6, unix.IPV6_UNICAST_HOPS}, {"ipv6-multicast-if", ipv6, unix.IPV6_MULTICAST_IF}, {"ipv6-multicast-hops", ipv6, unix.IPV6_MULTICAST_HOPS},
		{"ipv6-multicast-loop", ipv6, unix.IPV6_MULTICAST_LOOP}, {"ipv6-recvpktinfo", ipv6, unix.IPV6_RECVPKTINFO}, {"ipv6-recvhoplimit", ipv6, unix.IPV6_RECVHOPLIMIT}, {"ipv6-recverr", ipv6, unix.IPV6_RECVERR},
		{"ipv6-tclass", ipv6, unix.IPV6_TCLASS}, {"ipv6-recvtclass", ipv6, unix.IPV6_RECVTCLASS}, {"ipv6-mtu-discover", ipv6, unix.IPV6_MTU_DISCOVER}, {"ipv6-freebind", ipv6, unix.IPV6_FREEBIND},
		{"ipv6-transparent", ipv6, unix.IPV6_TRANSPARENT}, {"ipv6-autoflowlabel", ipv6, unix.IPV6_AUTOFLOWLABEL}, {"ipv6-addr-preferences", ipv6, unix.IPV6_ADDR_PREFERENCES}, {"ipv6-dontfrag", ipv6, unix.IPV6_DONTFRAG},
	}
}

// takeSocketOptions asks a copy of a socket for all options that it has.
func (t *taker) takeSocketOptions(key string, fd int) {
	kind, note := streamKind(fd)
	if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil { // of a datagram socket: the first one's size
		t.note(key+"/pending", strconv.Itoa(n), note)
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		t.cannot(key+"/option", err)
		return
	}
	inet := domain == unix.AF_INET || domain == unix.AF_INET6
	for _, o := range socketOptions() {
		if o.level != unix.SOL_SOCKET && !inet || o.level == unix.IPPROTO_IPV6 && domain != unix.AF_INET6 {
			continue
		}
		if value, ok := getOption(fd, o.level, o.number); ok {
			t.note(key+"/option/"+kind+o.name, value, note)
		}
	}
}

// streamKind is part of the key, since some options say something else of a TCP
// connection, or nothing: how large a segment is to it is found out as it goes.
func streamKind(fd int) (kind, note string) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return "", ""
	}
	if note = connectionNote(info.State); note == "connection" {
		return "connection/", note
	}
	return "stream/", note
}

// getOption reads one. A value of a length of zero is one, too.
func getOption(fd, level, number int) (string, bool) {
	var buf [256]byte
	size := uint32(len(buf))
	if number == unix.SO_ATTACH_FILTER && level == unix.SOL_SOCKET { // SO_GET_FILTER, whose length is in instructions
		size = 0
	}
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(number), uintptr(unsafe.Pointer(&buf)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return "", false
	}
	if number == unix.SO_ATTACH_FILTER && level == unix.SOL_SOCKET {
		return strconv.Itoa(int(size)) + " instructions", true
	}
	if size == 4 {
		return attributeText(buf[:4]), true
	}
	return hex.EncodeToString(buf[:min(int(size), len(buf))]), true
}
