// Package preflight looks through a running container before anything is
// frozen: what CRIU would refuse to dump, what it dumps only with an option,
// and what would silently be lost.
//
// # Words
//
// A finding is one such thing, with the process, the descriptor, the path, and
// what to do about it. It blocks (CRIU would refuse), or something is lost (the
// dump works, and the restored program misses it), or it is a remark. What a
// dump needs is the list of options that it must be given; the caller passes
// them on, so that a plain checkpoint works for the usual server.
//
//	r, err := preflight.Inspect(ctx, preflight.Subject{
//		Init: pid, Pids: pids, NetNS: ns, External: []string{"/dev", "/data"},
//	})
//	if err != nil {
//		return err
//	}
//	for _, f := range r.Findings { // what blocks comes first
//		fmt.Println(f)
//	}
//	options.TCPEstablished = r.Needs.TCPEstablished // and so on
//
// # How it looks
//
// From /proc, with a few system calls per process and descriptor, and from
// sock_diag(7) for those kinds of sockets that there are. It opens none of the
// container's files, traces nobody and changes no access time. It costs a third
// of a millisecond for a small container, a millisecond for a server with
// connections, and some tens for a hundred processes with fifty descriptors
// each: read on all processors.
//
// The container runs meanwhile. So options that only allow something are always
// needed, whether there is something for them now or not; and what blocks must
// be there for several looks, for about 55 ms, before it is believed.
//
// What is said of CRIU holds for 4.2, run inside of the container's network
// namespace and with the mounts that crucible makes. A test asks the CRIU of the
// machine about each case.
//
// # What it does not do
//
// It cannot see what /proc does not show: seccomp filters that notify, Landlock
// rules in force, a bare nanosleep, events that wait in an inotify queue, corked
// UDP sockets, options of packet sockets, a stop signal other than SIGSTOP. It
// does not know CRIU's version, and does not ask plugins (for GPUs).
package preflight
