package network

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// A sysctl is one file below /proc/sys/net that belongs to the namespace.
type sysctl struct {
	name  string
	usual string // its default everywhere; "" where it depends on the host
}

// sysctls are those that Save reads: what programs and administrators set. All
// of /proc/sys/net would be 500 files; each costs 5 us. Those of a single link
// come with the link (Link.Conf4, Conf6).
func sysctls() []sysctl {
	return []sysctl{
		{"core/somaxconn", "4096"},
		{"ipv4/icmp_echo_ignore_all", "0"},
		{"ipv4/ip_default_ttl", "64"},
		{"ipv4/ip_forward", "0"},
		{"ipv4/ip_local_port_range", "32768 60999"},
		{"ipv4/ip_local_reserved_ports", ""},
		{"ipv4/ip_nonlocal_bind", "0"},
		{"ipv4/ip_unprivileged_port_start", "1024"},
		{"ipv4/ping_group_range", "1 0"},
		{"ipv4/tcp_congestion_control", ""},
		{"ipv4/tcp_ecn", "2"},
		{"ipv4/tcp_fastopen", "1"},
		{"ipv4/tcp_fin_timeout", "60"},
		{"ipv4/tcp_keepalive_intvl", "75"},
		{"ipv4/tcp_keepalive_probes", "9"},
		{"ipv4/tcp_keepalive_time", "7200"},
		{"ipv4/tcp_max_syn_backlog", ""},
		{"ipv4/tcp_mtu_probing", "0"},
		{"ipv4/tcp_notsent_lowat", "4294967295"},
		{"ipv4/tcp_retries2", "15"},
		{"ipv4/tcp_rmem", ""},
		{"ipv4/tcp_slow_start_after_idle", "1"},
		{"ipv4/tcp_syn_retries", "6"},
		{"ipv4/tcp_syncookies", "1"},
		{"ipv4/tcp_timestamps", "1"},
		{"ipv4/tcp_tw_reuse", "2"},
		{"ipv4/tcp_wmem", ""},
		{"ipv4/conf/all/arp_announce", "0"},
		{"ipv4/conf/all/arp_ignore", "0"},
		{"ipv4/conf/all/rp_filter", ""}, // a fresh namespace inherits the host's
		{"ipv4/conf/default/rp_filter", ""},
		{"ipv6/bindv6only", "0"},
		{"ipv6/conf/all/disable_ipv6", "0"},
		{"ipv6/conf/all/forwarding", "0"},
		{"ipv6/conf/default/disable_ipv6", "0"},
		{"ipv6/ip_nonlocal_bind", "0"},
		{"unix/max_dgram_qlen", "10"},
	}
}

const sysctlDir = "/proc/sys/net"

// readSysctls reads the calling thread's namespace's. What cannot be read is not
// there: not in this kernel, or not in any namespace but the first.
func readSysctls(more []string) map[string]string {
	values := map[string]string{}
	buf := make([]byte, 4096)
	for _, s := range sysctls() {
		if v, ok := readSysctl(s.name, buf); ok && v != "" && v != s.usual {
			values[s.name] = v
		}
	}
	for _, name := range more {
		name, ok := sysctlFile(name)
		if !ok {
			continue
		}
		if v, ok := readSysctl(name, buf); ok {
			values[name] = v
		}
	}
	return values
}

// readSysctl spares what os.ReadFile does besides open, read and close.
func readSysctl(name string, buf []byte) (string, bool) {
	fd, err := unix.Open(sysctlDir+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil || n < 0 {
		return "", false
	}
	return strings.Join(strings.Fields(string(buf[:n])), " "), true
}

// sysctlFile turns net.ipv4.tcp_retries1 into ipv4/tcp_retries1. As sysctl(8)
// has it, a slash in place of a dot keeps the dots of a link's name.
func sysctlFile(name string) (string, bool) {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	rest, ok := strings.CutPrefix(name, "net/")
	return rest, ok && filepath.IsLocal(rest)
}

// writeSysctls sets the calling thread's namespace's, and says which it could
// not set: another kernel may lack the name or refuse the value.
func writeSysctls(values map[string]string) (warnings []Warning) {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	sort.Strings(names)
	buf := make([]byte, 4096)
	for _, name := range names {
		if !filepath.IsLocal(name) {
			warnings = append(warnings, Warning{"sysctl", name, "not a name below net/"})
			continue
		}
		if now, ok := readSysctl(name, buf); ok && now == values[name] {
			continue
		}
		err := os.WriteFile(filepath.Join(sysctlDir, name), []byte(values[name]), 0)
		if err != nil {
			var path *fs.PathError
			if errors.As(err, &path) {
				err = path.Err
			}
			warnings = append(warnings, Warning{"sysctl", name, "cannot be set to " + values[name] + ": " + err.Error()})
		}
	}
	return warnings
}
