package preflight

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// What CRIU 4.2 can and cannot save, by kind of descriptor. Each table names
// the part of CRIU's source that it follows.

const closeFirst = "let the program close it first"

// anonymousKind says what stands in the way of a descriptor of an anonymous
// inode; none is a kind that CRIU saves (criu/files.c, dump_one_file).
func anonymousKind(name string) (f Finding, none bool) {
	switch name {
	case "[eventfd]", "[eventpoll]", "inotify", "[inotify]", "[fanotify]", "[signalfd]", "[timerfd]", "[pidfd]":
		return Finding{}, true
	case "bpf-map":
		// Depends on how CRIU was built (CONFIG_HAS_LIBBPF).
		return Finding{Kind: "bpf", What: "only a CRIU that was built with libbpf saves a BPF map", Remedy: closeFirst}, false
	}
	f = Finding{Kind: "anon-inode", Blocks: true, What: fmt.Sprintf("CRIU cannot save a descriptor of kind %s", name), Remedy: closeFirst}
	switch {
	case name == "[io_uring]":
		f.Kind, f.What = "io-uring", "CRIU cannot save an io_uring"
		f.Remedy = "make the program use another way of input and output (for libuv and Node.js: UV_USE_IO_URING=0)"
	case name == "[userfaultfd]":
		f.Kind, f.What = "userfaultfd", "CRIU cannot save a userfaultfd"
	case name == "[perf_event]":
		f.Kind, f.What, f.Remedy = "perf", "CRIU cannot save a performance counter", "end the profiler first"
	case name == "seccomp notify":
		f.Kind, f.What, f.Remedy = "seccomp-notify", "CRIU cannot save a seccomp listener", "let the supervisor live outside of the container"
	case name == "[landlock-ruleset]" || name == "landlock-ruleset":
		f.Kind, f.What = "landlock", "CRIU cannot save a Landlock ruleset"
	case strings.HasPrefix(name, "bpf") || name == "btf":
		f.Kind, f.What = "bpf", fmt.Sprintf("CRIU cannot save a BPF object (%s)", name)
	case strings.HasPrefix(name, "kvm-"):
		f.Kind, f.What, f.Remedy = "kvm", "CRIU cannot save a virtual machine", "end it first, or move it by its own means"
	}
	return f, false
}

// Major numbers of Documentation/admin-guide/devices.txt.
const (
	memMajor, ttyMajor, auxMajor, miscMajor = 1, 4, 5, 10
	ptmMajor, ptmLast, ptsMajor             = 128, 135, 136
	usbSerialMajor, lowSerialMajor          = 188, 204
	tunMinor, autofsMinor                   = 200, 235
)

// isTerminal follows criu/tty.c, get_tty_driver.
func isTerminal(rdev uint64) bool {
	major, minor := unix.Major(rdev), unix.Minor(rdev)
	switch {
	case major == auxMajor:
		return minor <= 2
	case major == ttyMajor:
		return minor >= 1 && minor <= 63
	case major >= ptmMajor && major <= ptsMajor, major == usbSerialMajor, major == lowSerialMajor:
		return true
	}
	return false
}

// deviceKind says what stands in the way of an open character device; none is
// one that CRIU opens again (criu/files.c, dump_chrdev).
func deviceKind(rdev uint64) (f Finding, none bool) {
	major, minor := unix.Major(rdev), unix.Minor(rdev)
	switch {
	case major == memMajor, isTerminal(rdev), major == miscMajor && minor == autofsMinor:
		return Finding{}, true
	case major == miscMajor && minor == tunMinor:
		// criu/tun.c, dump_tunfile: it wants to dump the network namespace,
		// which is not left to CRIU here.
		return Finding{Kind: "tun", Blocks: true, What: "a tun or tap device cannot be saved", Remedy: closeFirst}, false
	}
	return Finding{Kind: "device", Blocks: true, What: fmt.Sprintf("CRIU cannot save what the driver of device %d:%d keeps for an open file", major, minor),
		Remedy: closeFirst}, false
}

// socketKind says what stands in the way of a socket, by its protocol's name;
// none is one that CRIU saves (criu/sockets.c, dump_socket; criu/sk-inet.c,
// can_dump_ipproto).
func socketKind(proto string) (f Finding, none bool) {
	switch proto {
	case "", "TCP", "TCPv6", "UDP", "UDPv6", "UDP-Lite", "UDPLITEv6", "RAW", "RAWv6", "PING", "PINGv6", "UNIX", "UNIX-STREAM", "NETLINK", "PACKET":
		return Finding{}, true
	case "MPTCP", "MPTCPv6":
		return Finding{Kind: "mptcp", Blocks: true, What: "CRIU cannot save an MPTCP socket",
			Remedy: "start the program without MPTCP (for one written in Go: GODEBUG=multipathtcp=0)"}, false
	case "AF_VSOCK":
		return Finding{Kind: "vsock", Blocks: true, What: "CRIU cannot save an AF_VSOCK socket", Remedy: closeFirst}, false
	case "SCTP", "SCTPv6", "DCCP", "DCCPv6", "L2TP/IP", "L2TPv6":
		return Finding{Kind: "socket-protocol", Blocks: true, What: "CRIU cannot save a socket of protocol " + proto, Remedy: closeFirst}, false
	}
	return Finding{Kind: "socket-family", Blocks: true, What: "CRIU cannot save a socket of kind " + proto, Remedy: closeFirst}, false
}

// Magic numbers of statfs(2) that x/sys has no name for.
const (
	mqueueMagic    = 0x19800202
	secretmemMagic = 0x5345434d
)

// strayKind says what a file is whose mount is not the container's, from the
// kind of its file system.
func strayKind(fs int64) Finding {
	switch fs {
	case mqueueMagic:
		return Finding{Kind: "mqueue", Blocks: true, What: "CRIU cannot save an open POSIX message queue", Remedy: closeFirst}
	case secretmemMagic:
		return Finding{Kind: "secretmem", Blocks: true, What: "CRIU cannot save secret memory (memfd_secret)", Remedy: "let the program give it back first"}
	}
	return Finding{Kind: "file-outside", Blocks: true, What: "the file was opened outside of the container, or its mount is gone",
		Remedy: "let the program open it inside, or close it first"}
}
