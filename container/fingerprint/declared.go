package fingerprint

// Declared is the table of the differences that must be. Whatever is not in it
// is reported.
func Declared() []Declaration {
	all := []Declaration{
		{Key: "process/*/ns/time*", Kind: Becomes, Before: "host's", After: "that of process *",
			Reason: "CRIU gives a container its own time namespace if it has none, so that its clocks go on from where they stood"},
		{Key: "process/*/map/*/name", Kind: Becomes, Before: "/dev/zero (deleted)", After: "/memfd:/dev/zero (deleted)",
			Reason: "CRIU makes memory that processes share as a file in memory, of the same name"},
		{Key: "process/*/fd/*/tmpfile", Kind: Becomes, Before: "yes", After: "nothing",
			Reason: "a file that never had a name comes back as one that was deleted"},
		{Key: "socket/*/option/connection/reuseport", Kind: Becomes, Before: "0", After: "1",
			Reason: "CRIU makes the sockets of connections so, and leaves it (criu/sk-inet.c); it has a meaning for those that are bound later only"},
		{Key: "*mount[*]/super/uuid", Kind: Becomes, Before: "on", After: "nothing",
			Reason: "an overlay is mounted anew, with what it held, and the kernel gives a number of its own to an empty one only"},
		{Key: "process/*/fd/*/directory-only", Kind: Becomes, Before: "yes", After: "nothing",
			Reason: "CRIU opens a directory without asking for one (O_DIRECTORY), which has a meaning when a file is opened only"},
		{Key: "process/*/fd/*/terminal-flag/large-file", Kind: Becomes, Before: "nothing", After: "yes",
			Reason: "the kernel notes whether a terminal was opened by open(2) or by ioctl_tty(2), TIOCGPTPEER"},
		{Key: "process/*/fd/*/terminal-flag/close-on-exec", Kind: Becomes, Before: "yes", After: "nothing",
			Reason: "the kernel shows it of a terminal that was opened with it, also when it was taken back since; CRIU opens it without"},
		{Key: "socket/*/option/connection/ipv6-v6only", Kind: Becomes, Before: "0", After: "1",
			Reason: "CRIU makes the sockets of connections so, and leaves it; it has a meaning for those that are bound later only"},
		{Key: "sysctl/net/ipv*/ip_nonlocal_bind", Kind: Becomes, Before: "0", After: "1", When: OtherAddress,
			Reason: "so that sockets which were bound to the old address can be bound to it again"},
	}
	for _, group := range []struct {
		kind   Kind
		when   When
		reason string
		keys   []string
	}{
		{NotRecorded, Always, "a number that the kernel gives anew in each life", []string{
			"process/*/fd/*/ino", "process/*/fd/*/eventfd-id", "socket/*/cgroup-id", "socket/*/name-inode",
		}},
		{NotRecorded, Always, "a number outside of the container; the one inside is part of the key", []string{
			"process/*/status/Pid", "process/*/status/Tgid", "process/*/status/Ngid", "process/*/status/NSpid", "process/*/status/NStgid",
			"network/link[*]/peer-index", "cgroup[*]/*cgroup.procs", "cgroup[*]/*cgroup.threads", "cgroup[*]/*tasks",
		}},
		{NotRecorded, Always, "the process's name is that of its first thread", []string{"process/*/status/Name"}},
		{NotRecorded, Always, "an account of what was done or loaded so far, which begins anew", []string{
			"process/*/status/*ctxt_switches", "process/*/status/VmPeak", "process/*/status/VmHWM", "process/*/status/VmRSS", "process/*/status/Rss*",
			"process/*/status/VmPTE", "process/*/status/VmSwap", "process/*/status/FDSize",
			"process/*/map/*/Size", "process/*/map/*/Rss", "process/*/map/*/Pss*", "process/*/map/*/Shared_*", "process/*/map/*/Private_*",
			"process/*/map/*/Referenced", "process/*/map/*/Anonymous", "process/*/map/*/KSM", "process/*/map/*/LazyFree", "process/*/map/*/AnonHugePages",
			"process/*/map/*/ShmemPmdMapped", "process/*/map/*/FilePmdMapped", "process/*/map/*/Swap*", "process/*/map/*/Locked",
			"cgroup[*]/*cpuacct.usage*", "cgroup[*]/*.pressure", "cgroup[*]/*max_usage_in_bytes", "cgroup[*]/*failcnt", "cgroup[*]/*memory.peak", "cgroup[*]/*memory.swap.peak",
			"network/link[*]/stats", "network/link[*]/carrier-changes", "network/qdisc[*]/stats", "network/link[*]/family/10/3", "network/link[*]/family/10/6",
			"socket/*/receive-allocated", "socket/*/send-allocated", "socket/*/forward-allocated", "socket/*/backlog", "socket/*/drops", "socket/*/write-queued",
		}},
		{NotRecorded, Always, "a connection finds out as it goes", []string{"socket/*/option/connection/tcp-maxseg", "socket/*/option/connection/tcp-quickack", "socket/*/option/connection/tcp-window-clamp"}},
		{NotRecorded, Always, "what is sent to a group is never sent over TCP", []string{"socket/*/option/stream/ip*-multicast-*", "socket/*/option/connection/ip*-multicast-*"}},
		{NotRecorded, Always, "shared with all other processes of the same user", []string{"process/*/status/SigQ"}},
		{NotRecorded, Always, "a mark of the kernel's own on memory that was written to (sd) or that may be (ac): CRIU writes to what it restores", []string{
			"process/*/map/*/flag/sd", "process/*/map/*/flag/ac",
		}},
		{NotRecorded, Always, "when an address or a neighbour was last looked at, by the host's clock", []string{
			"network/*/times", "network/*/probes", "network/link[*]/family/10/5",
		}},
		{Runs, Always, "a clock goes on", []string{"clock/*"}},
		{RunsOut, Always, "what is left of a timer becomes less", []string{"process/*/fd/*/it_value"}},
		{Counts, Always, "a timer expires as time goes by", []string{"process/*/fd/*/ticks"}},
		{Returns, Always, "a call that has just come to its end looks like one that waits; of those that wait the kernel itself begins some again after a freeze and has others return EINTR (signal(7)), and so does CRIU", []string{
			"process/*/thread/*/call",
		}},
		{NotRecorded, Always, "of a process that has ended there is its exit status, its name and its family, and nothing else that anybody could use", []string{"process/*/ended/*"}},
		{Anything, Always, "CRIU attaches a segment of shared memory to fill it, as does who has it attached", []string{"sysvipc/shm/*/atime", "sysvipc/shm/*/dtime", "sysvipc/shm/*/ctime"}},
		{Anything, Always, "what is known of a neighbour ages, and is verified when it is used", []string{"network/neighbour[*]/state"}},
		{Anything, Always, "an entry for the loopback link is made when it is used, and means nothing", []string{"network/neighbour[* dev 1]/*"}},
		{Anything, OtherBoot, "who is a neighbour on another host is found out anew", []string{"network/neighbour[*]/*"}},
		{Closes, TCPClosed, "connections were to be closed, or cannot go on from another address", []string{"socket/*"}},
		{Moves, OtherAddress, "it is another address, and the link's own address follows from it", []string{"network/*"}},
		{Anything, OtherName, "the layer is in the directory of the container", []string{"mount[/]/super/upperdir", "mount[/]/super/workdir"}},
	} {
		for _, key := range group.keys {
			all = append(all, Declaration{Key: key, Kind: group.kind, When: group.when, Reason: group.reason})
		}
	}
	return all
}
