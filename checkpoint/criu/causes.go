package criu

import "syscall"

// known is a cause that is understood: how CRIU words it, and what to do.
type known struct {
	Kind    string // stable: callers and tests compare it
	Pattern string // see match
	Remedy  string
	Errno   syscall.Errno // where CRIU does not print one
	Stale   bool          // the errno that CRIU prints is left over from something else
	Alone   bool          // it is a cause only if nothing was said before it
}

// causes is the table of known causes. The more special pattern stands before
// the more general one. Each group names the part of CRIU's source that the
// wording was taken from, by reading 4.2.1; most of it has not changed since
// 3.17.
//
// It is a function so that a program that never fails never builds it.
func causes() []known {
	var all []known
	for _, group := range [][]known{
		programCauses(), fileCauses(), socketCauses(), taskCauses(),
		mountCauses(), namespaceCauses(), restoreCauses(), generalCauses(),
	} {
		all = append(all, group...)
	}
	return all
}

// programCauses are from before the work begins: criu/crtools.c,
// criu/config.c, criu/kerndat.c, criu/cr-service.c.
func programCauses() []known {
	return []known{
		{Kind: "library-missing", Pattern: "error while loading shared libraries: {library}: cannot open",
			Remedy: "install what CRIU was built with, or run scripts/setup, which brings its own"},
		{Kind: "library-version", Pattern: "version `{symbol}' not found",
			Remedy: "this CRIU was built for another system's libraries; run scripts/setup"},
		{Kind: "option-unknown", Pattern: "unrecognized option '{option}'",
			Remedy: "this CRIU does not know the option given by --criu-option; `criu --help` lists what it knows"},
		{Kind: "option-argument", Pattern: "option '{option}' doesn't allow an argument",
			Remedy: "give this --criu-option without a value"},
		{Kind: "option-argument", Pattern: "option '{option}' requires an argument",
			Remedy: "give this --criu-option as name=value"},
		{Kind: "option-argument", Pattern: "option '{option}' is ambiguous", Remedy: "write the --criu-option's whole name"},
		{Kind: "option-argument", Pattern: "invalid argument for {option}: {value}", Remedy: "see criu(8) for what this option takes"},
		{Kind: "option-argument", Pattern: "invalid argument {value} for {option}", Remedy: "see criu(8) for what this option takes"},
		{Kind: "option-argument", Pattern: "Invalid value for {option}: {value}", Remedy: "see criu(8) for what this option takes"},
		{Kind: "option-argument", Pattern: "Unknown FPU mode `{value}' selected", Remedy: "see criu(8) for what --criu-option cpu-cap takes"},
		{Kind: "privilege", Pattern: "CRIU needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE capability",
			Remedy: "run as root"},
		{Kind: "vdso", Pattern: "Unexpected rt vDSO area bounds",
			Remedy: "this CRIU is older than the kernel's vDSO layout (6.13 and later need CRIU 4.1 or newer): run scripts/setup"},
		{Kind: "vdso", Pattern: "Kdat sizes of vdso/vvar differ",
			Remedy: "CRIU's cache is of another kernel: remove criu.kdat from CRIU's run directory"},
		{Kind: "kernel-feature", Pattern: "{check} failed when initializing kerndat",
			Remedy: "the kernel lacks something that CRIU needs, or CRIU is too old for it: `crucible doctor` asks for each feature"},
		{Kind: "track-mem", Pattern: "Tracking memory is not available",
			Remedy: "the kernel has no CONFIG_MEM_SOFT_DIRTY: checkpoint without pre-copy"},
		{Kind: "deprecated", Pattern: "Deprecated functionality ({what}) rejected",
			Remedy: "--criu-option deprecated allows it"},
		{Kind: "images-dir", Pattern: "Can't open dir {path}:", Remedy: "the image directory must exist and be readable"},
		{Kind: "plugin", Pattern: "Missing required plugin: {plugin}", Remedy: "install the CRIU plugin that the image was made with"},
	}
}

// fileCauses: criu/files.c, criu/files-reg.c, criu/files-ext.c,
// criu/file-lock.c, criu/fsnotify.c, criu/pipes.c, criu/tty.c.
func fileCauses() []known {
	return []known{
		{Kind: "file-outside", Pattern: "Can't lookup mount={mount} for fd={fd} path={path}",
			Remedy: "the descriptor was opened outside of the container: let the program open it inside, or close it before it starts"},
		{Kind: "file-overmounted", Pattern: "Open files on overmounted mounts are not supported yet; mount={mount} fd={fd} path={path}",
			Remedy: "something was mounted over the open file: unmount it, or close the file"},
		{Kind: "file-unreachable", Pattern: "Unaccessible path opened",
			Remedy: "the open file's path now leads to another file: close the file, or put the old one back"},
		{Kind: "ghost-limit", Pattern: "Can't dump ghost file {path} of {bytes} size, increase limit",
			Remedy: "a deleted file is still open and must go into the image: allow it with a larger --ghost-limit"},
		{Kind: "link-remap", Pattern: "Can't link {file} -> {path}: No such file or directory",
			Remedy: "a deleted file was kept as link_remap.N beside its old place, and that is gone: the image needs it"},
		{Kind: "link-remap", Pattern: "Can't create link remap for {path}. Use link-remap option",
			Remedy: "a deleted file is still linked elsewhere: allow CRIU to link it back with --link-remap"},
		{Kind: "file-locks", Pattern: "Some file locks are hold by dumping tasks!",
			Remedy: "allow file locks with --file-locks; nobody outside of the container may hold a lock on the same files"},
		{Kind: "file-lock", Pattern: "Unknown file lock", Remedy: "CRIU does not know this kind of lock (a lease, perhaps): let the program give it back first"},
		{Kind: "io-uring", Pattern: "Can't dump file {fd} of that type [{_}] (anon anon_inode:[io_uring])",
			Remedy: "CRIU cannot save an io_uring: make the program use another way of input and output (for libuv: UV_USE_IO_URING=0)", Errno: syscall.ENOTSUP},
		{Kind: "io-uring", Pattern: "send_fds failed (-22)",
			// Linux 705318a99a13, "io_uring/af_unix: disable sending io_uring over sockets", in 6.7
			Remedy: "the kernel lets no io_uring be passed to CRIU: make the program use another way of input and output (for libuv: UV_USE_IO_URING=0)"},
		{Kind: "userfaultfd", Pattern: "Can't dump file {fd} of that type [{_}] (anon anon_inode:[userfaultfd])",
			Remedy: "CRIU cannot save a userfaultfd: end what uses it (live migration or a garbage collector, perhaps)", Errno: syscall.ENOTSUP},
		{Kind: "bpf", Pattern: "Can't dump file {fd} of that type [{_}] (anon anon_inode:bpf-prog)", Remedy: "CRIU saves BPF maps, and no programs or links: close them first", Errno: syscall.ENOTSUP},
		{Kind: "perf", Pattern: "Can't dump file {fd} of that type [{_}] (anon anon_inode:[perf_event])", Remedy: "CRIU cannot save performance counters: end the profiler", Errno: syscall.ENOTSUP},
		{Kind: "seccomp-notify", Pattern: "Can't dump file {fd} of that type [{_}] (anon anon_inode:seccomp notify)",
			Remedy: "CRIU cannot save a seccomp listener: the supervisor must live outside of the container", Errno: syscall.ENOTSUP},
		{Kind: "anon-inode", Pattern: "Can't dump file {fd} of that type [{_}] (anon {what})",
			Remedy: "CRIU cannot save this kind of descriptor: let the program close it first", Errno: syscall.ENOTSUP},
		{Kind: "device", Pattern: "Can't dump file {fd} of that type [{_}] (chr {device})",
			Remedy: "CRIU cannot save what a device driver keeps for an open device: let the program close it first", Errno: syscall.ENOTSUP},
		{Kind: "mqueue", Pattern: "Can't dump file {fd} of that type [{_}] (reg dev/mqueue{path})",
			Remedy: "CRIU cannot save an open POSIX message queue: let the program close it first", Errno: syscall.ENOTSUP},
		{Kind: "descriptor", Pattern: "Can't dump file {fd} of that type [{_}] ({what})",
			Remedy: "CRIU cannot save this kind of descriptor: let the program close it first", Errno: syscall.ENOTSUP},
		{Kind: "inotify", Pattern: "Can't find suitable path for handle (dev {device} ino {inode}):",
			Remedy: "an inotify watch's file cannot be found by its handle: --criu-option force-irmap, and --criu-option irmap-scan-path=DIR for where it may be"},
		{Kind: "inotify", Pattern: "Can't dump that handle",
			Remedy: "an inotify watch is on a file system without file handles (overlay, perhaps): --criu-option force-irmap"},
		{Kind: "inotify", Pattern: "fsnotify: Unable to open {path}: No such file or directory",
			Remedy: "a file that an inotify watch is on is missing in the new root file system: bring it there"},
		{Kind: "shell-job", Pattern: "The root process {pid} is not a session leader",
			Remedy: "the container's first process shares a session with somebody outside: start it detached, or allow it with --shell-job"},
		{Kind: "shell-job", Pattern: "Found dangling tty with sid {sid} pgid {pgid} ({_}) on peer fd {fd}",
			Remedy: "a terminal from outside is open in the container: use a terminal of its own, or allow it with --shell-job"},
		{Kind: "tty-outside", Pattern: "ctty inheritance detected sid/pgrp {sid}",
			Remedy: "the controlling terminal's other side is outside of the container: use a terminal of its own, or allow it with --shell-job"},
		{Kind: "tty-outside", Pattern: "Don't have tty to inherit session from",
			Remedy: "the image has a terminal whose other side was outside: restore with a console, so that the new one can be handed over"},
		{Kind: "tty-outside", Pattern: "Found slave peer index {index} without", Remedy: "a terminal's other side is outside of the container: use a terminal of its own"},
	}
}

// socketCauses: criu/sk-inet.c, criu/sk-unix.c, criu/sk-tcp.c,
// criu/sockets.c, criu/netfilter.c, criu/net.c, soccr/soccr.c.
func socketCauses() []known {
	return []known{
		{Kind: "tcp-established", Pattern: "Connected TCP socket, consider using --tcp-established option",
			Remedy: "a TCP connection is open: keep it with --tcp-established, or give it up with --tcp-close"},
		{Kind: "tcp-established", Pattern: "Connected TCP socket in image",
			Remedy: "the image holds live TCP connections: restore with --tcp-close"},
		{Kind: "tcp-close", Pattern: "Need to set the --tcp-close options", Remedy: "the image was made with --tcp-close: restore with --tcp-close, too"},
		{Kind: "tcp-in-flight", Pattern: "In-flight connection (l) for {socket}",
			Remedy: "a client's connection waits to be accepted: leave it out with --skip-in-flight; the client is then refused"},
		{Kind: "tcp-half-closed", Pattern: "TCP_REPAIR can't be enabled for half-closed sockets", Remedy: "a newer kernel is needed for half-closed TCP connections"},
		{Kind: "tcp-repair", Pattern: "Can't turn TCP repair mode ON", Remedy: "this takes CAP_NET_ADMIN in the container's network namespace"},
		{Kind: "mptcp", Pattern: "Unsupported proto 262 for socket {socket}", Errno: syscall.ENOTSUP,
			Remedy: "CRIU cannot save MPTCP: a Go program listens without it under GODEBUG=multipathtcp=0"},
		{Kind: "socket-protocol", Pattern: "Unsupported proto {protocol} for socket {socket}", Errno: syscall.ENOTSUP,
			Remedy: "CRIU saves TCP, UDP, UDP-Lite, ICMP and raw sockets only: let the program close this one first"},
		{Kind: "socket-type", Pattern: "Can't dump {type} inet socket {socket}.", Errno: syscall.ENOTSUP,
			Remedy: "CRIU saves stream, datagram and raw sockets only: let the program close this one first"},
		{Kind: "vsock", Pattern: "Unknown socket collected (family 40)", Errno: syscall.ENOTSUP, Remedy: "CRIU cannot save AF_VSOCK sockets: let the program close it first"},
		{Kind: "socket-family", Pattern: "BUG! Unknown socket collected (family {family})", Errno: syscall.ENOTSUP,
			Remedy: "CRIU cannot save sockets of this family: let the program close it first"},
		{Kind: "socket-family", Pattern: "Unsupported socket family: {family}", Errno: syscall.ENOTSUP,
			Remedy: "CRIU cannot save sockets of this family: let the program close it first"},
		{Kind: "netlink-data", Pattern: "netlink: The socket has data to read", Errno: syscall.EBUSY,
			Remedy: "the program has not read an answer of the kernel's yet: try again, or let it read its netlink sockets"},
		{Kind: "udp-corked", Pattern: "Can't dump corked dgram socket {socket}", Remedy: "a datagram is half written: try again"},
		{Kind: "unix-external", Pattern: "External socket is used. Consider using --ext-unix-sk option",
			Remedy: "a unix socket's peer is outside of the container: allow it with --ext-unix-sk, or end the connection"},
		{Kind: "unix-external", Pattern: "External socket found in image",
			Remedy: "the image holds a unix socket whose peer was outside: end the connection, or checkpoint with --ext-unix-sk, which the restore goes by"},
		{Kind: "unix-stream", Pattern: "Can't dump half of stream unix connection. name: {name}; peer name: {peer}",
			Remedy: "a stream to a process outside of the container cannot be saved: end the connection"},
		{Kind: "unix-external", Pattern: "Can't dump name-less external socket", Remedy: "a unix socket's peer is outside of the container and has no name: end the connection"},
		{Kind: "unix-peer", Pattern: "Unix socket {socket} without peer {peer}", Remedy: "a unix socket's peer is outside of the container: end the connection"},
		{Kind: "unix-dangling", Pattern: "Dangling connection {socket}", Errno: syscall.ENOTSUP,
			Remedy: "a unix socket is connected to a listener outside of the container that has not accepted it: end the connection"},
		{Kind: "unix-in-flight", Pattern: "Non-empty write queue on an in-flight socket {socket}", Remedy: "a unix connection with data waits to be accepted: try again"},
		{Kind: "unix-bind", Pattern: "Can't bind id {_} ino {socket} addr {path}",
			Remedy: "the socket's path exists already, or its directory does not: restore on a fresh root file system"},
		{Kind: "address-in-use", Pattern: "Can't bind inet socket (id {socket}): Address already in use",
			Remedy: "another program has the port: restore into a network namespace of its own"},
		{Kind: "address-missing", Pattern: "Can't bind inet socket (id {socket}): Cannot assign requested address",
			Remedy: "the new network namespace lacks the address that the socket had: restore with the same address, or with --tcp-close"},
		{Kind: "address-missing", Pattern: "Can't connect inet socket back",
			Remedy: "the socket's own address is missing here, or the connection exists already: restore at the same address (--ip), or, if it is one of TCP, with --tcp-close"},
		{Kind: "interface-missing", Pattern: "Can't set 1:25 (len {_}): No such device", // SOL_SOCKET, SO_BINDTODEVICE
			Remedy: "a socket is bound to an interface that is missing here: give the interface the same name"},
		{Kind: "interface-missing", Pattern: "couldn't find ifindex for {interface}", Remedy: "a socket is bound to an interface that is missing here: give the interface the same name"},
		{Kind: "nft-missing", Pattern: "CRIU was built without libnftables support", Remedy: "run scripts/setup, which builds CRIU with nftables, or give the container a network of its own"},
		{Kind: "nft", Pattern: "Locking network failed using nftables",
			Remedy: "the kernel has no nf_tables, or refuses it: load the module, or give the container a network of its own"},
		{Kind: "nft", Pattern: "Locking connection failed using nftables",
			Remedy: "the kernel has no nf_tables, or refuses it: load the module, or give the container a network of its own"},
		{Kind: "iptables", Pattern: "Locking network failed: iptables-restore returned {status}.",
			Remedy: "iptables-restore is missing or the kernel refuses it: leave the network lock to crucible, which uses nftables"},
		{Kind: "iptables", Pattern: "Iptables configuration failed", Remedy: "iptables is missing or the kernel refuses it: leave the network lock to crucible, which uses nftables"},
		{Kind: "link", Pattern: "Unsupported link {link} (type {type} kind {kind})", Errno: syscall.ENOTSUP,
			Remedy: "CRIU cannot save this kind of interface: keep the network outside of CRIU, as crucible does by default"},
		{Kind: "diag-module", Pattern: "Sockets (family {family} proto {protocol}) are not collected",
			Remedy: "the kernel's socket diagnosis is missing: load unix_diag, tcp_diag, udp_diag, raw_diag, af_packet_diag and netlink_diag"},
	}
}
