package kernel

// Level says how much is lost without an option.
type Level string

// Levels of a Row.
const (
	Required    Level = "required"    // the lab does not boot, or no container comes back
	Recommended Level = "recommended" // some programs or some features are lost
)

// Row is what Check says about one option.
type Row struct {
	Group  string `json:"group"`  // "boot", "checkpoint", "container", "programs"
	Option string `json:"option"` // with CONFIG_
	Level  Level  `json:"level"`
	For    string `json:"for"`   // what it is needed for
	State  string `json:"state"` // y, m, n, or "missing" where the configuration does not name it
	OK     bool   `json:"ok"`
	Remedy string `json:"remedy,omitempty"` // what to switch on; "" if it is OK
}

// requirement is a line of the table. What can be a module may be one: the lab
// loads modules.
type requirement struct {
	group  string
	option string
	level  Level
	yes    bool // must be built in
	use    string
	also   string // what it depends on, beyond the obvious
}

// requirements are what the lab, CRIU and crucible need. CRIU's are those of
// https://criu.org/Linux_kernel, less the ones without which only some programs
// cannot be carried (NETFILTER_XT_MARK, TUN, the rarer *_DIAG): these are
// recommended. The levels agree with what container/host asks a running kernel.
func requirements() []requirement {
	const boot, cr, container, programs = "boot", "checkpoint", "container", "programs"
	return []requirement{
		// The lab's machine: what must be there before a module can be loaded,
		// then what its modules may bring.
		{boot, "64BIT", Required, true, "crucible and CRIU are 64-bit programs", ""},
		{boot, "BLK_DEV_INITRD", Required, true, "the lab's root is an initramfs", ""},
		{boot, "BINFMT_ELF", Required, true, "running programs", ""},
		{boot, "TTY", Required, true, "the console", "EXPERT"},
		{boot, "PRINTK", Required, true, "the kernel's messages: a panic must be seen", "EXPERT"},
		{boot, "SERIAL_8250", Required, true, "console and results are serial ports", ""},
		{boot, "SERIAL_8250_CONSOLE", Required, true, "the kernel's messages: a panic must be seen", "SERIAL_8250=y"},
		{boot, "PROC_FS", Required, true, "all that CRIU knows about processes", "EXPERT"},
		{boot, "SYSFS", Required, true, "finding devices and cgroups", "EXPERT"},
		{boot, "TMPFS", Required, true, "the machine's and the containers' file systems", "SHMEM"},
		{boot, "X86_IOPL_IOPERM", Required, true, "the machine's exit code (isa-debug-exit)", ""},
		{boot, "PCI", Required, true, "the disk for bulk results", ""},
		{boot, "VIRTIO_PCI", Required, false, "the disk for bulk results", "VIRTIO_MENU"},
		{boot, "VIRTIO_BLK", Required, false, "the disk for bulk results", "BLK_DEV"},
		{boot, "DEVTMPFS", Recommended, true, "device nodes of what modules bring", ""},
		{boot, "MODULES", Recommended, true, "what is not built in", ""},
		{boot, "KALLSYMS", Recommended, true, "names in an oops, and a profile by function", ""},
		{boot, "MAGIC_SYSRQ", Recommended, true, "the tests that crash the machine", ""},

		// CRIU itself, for any process.
		{cr, "CHECKPOINT_RESTORE", Required, true, "clone3 with a pid, map_files, prctl(PR_SET_MM), ...", "PROC_FS"},
		{cr, "ADVISE_SYSCALLS", Required, true, "CRIU asks for guard pages by madvise(2) when it starts", "EXPERT"},
		{cr, "EPOLL", Required, true, "CRIU, and most servers", "EXPERT"},
		{cr, "EVENTFD", Required, true, "CRIU, and most servers", "EXPERT"},
		{cr, "FHANDLE", Required, true, "inotify and fanotify watches, open_by_handle_at(2)", ""},
		{cr, "INOTIFY_USER", Required, true, "CRIU probes it at each start", ""},
		{cr, "UNIX", Required, false, "unix sockets", "NET"},
		{cr, "PACKET", Recommended, false, "packet sockets; parking packets while a container is frozen", "NET"},
		{cr, "INET", Required, true, "TCP and UDP", "NET"},
		{cr, "UNIX_DIAG", Required, false, "finding unix sockets", "UNIX"},
		{cr, "INET_DIAG", Required, false, "finding TCP sockets", "INET"},
		{cr, "INET_TCP_DIAG", Required, false, "finding TCP sockets", "INET_DIAG"},
		{cr, "INET_UDP_DIAG", Required, false, "finding UDP sockets", "INET_DIAG"},
		{cr, "PACKET_DIAG", Recommended, false, "finding packet sockets", "PACKET"},
		{cr, "NETLINK_DIAG", Recommended, false, "finding netlink sockets", ""},
		{cr, "INET_RAW_DIAG", Recommended, false, "raw sockets", "INET_DIAG"},
		{cr, "PROC_PAGE_MONITOR", Required, true, "/proc/PID/pagemap", "EXPERT"},
		{cr, "PROC_CHILDREN", Recommended, true, "walking the process tree quickly", ""},
		{cr, "KCMP", Required, true, "finding what processes share", ""},
		{cr, "MEM_SOFT_DIRTY", Recommended, true, "pre-copy and incremental checkpoints", "CHECKPOINT_RESTORE"},
		{cr, "USERFAULTFD", Recommended, true, "lazy pages (post-copy)", ""},
		{cr, "RSEQ", Recommended, true, "programs of glibc 2.35 and later, whose threads register one", ""},
		{cr, "SECCOMP_FILTER", Recommended, true, "programs and containers with a seccomp filter", "SECCOMP"},
		{cr, "IA32_EMULATION", Recommended, true, "32-bit programs", ""},
		{cr, "CROSS_MEMORY_ATTACH", Recommended, true, "pre-dump by process_vm_readv(2)", ""},

		// What crucible makes containers of.
		{container, "NAMESPACES", Required, true, "containers", "EXPERT"},
		{container, "PID_NS", Required, true, "containers", "NAMESPACES"},
		{container, "UTS_NS", Required, true, "containers", "NAMESPACES"},
		{container, "IPC_NS", Required, true, "containers", "NAMESPACES, SYSVIPC"},
		{container, "NET_NS", Required, true, "containers", "NAMESPACES"},
		{container, "USER_NS", Recommended, true, "containers without root", "NAMESPACES"},
		{container, "TIME_NS", Recommended, true, "clocks that do not jump at a restore", "NAMESPACES"},
		{container, "CGROUPS", Required, true, "freezing, limits, and the cgroup namespace", ""},
		{container, "CGROUP_FREEZER", Recommended, true, "freezing with cgroup v1 (v2 needs no option)", "CGROUPS"},
		{container, "MEMCG", Recommended, true, "memory limits", "CGROUPS"},
		{container, "CGROUP_PIDS", Recommended, true, "process limits", "CGROUPS"},
		{container, "CGROUP_SCHED", Recommended, true, "CPU weights", "CGROUPS"},
		{container, "CFS_BANDWIDTH", Recommended, true, "CPU limits", "FAIR_GROUP_SCHED"},
		{container, "CPUSETS", Recommended, true, "which CPUs a container has", "CGROUPS"},
		{container, "CGROUP_BPF", Recommended, true, "device rules with cgroup v2", "BPF_SYSCALL"},
		{container, "CGROUP_DEVICE", Recommended, true, "device rules with cgroup v1", "CGROUPS"},
		{container, "OVERLAY_FS", Required, false, "a root file system with changes of its own", ""},
		{container, "TMPFS_XATTR", Recommended, true, "an overlay on the machine's tmpfs", "TMPFS"},
		{container, "VETH", Required, false, "a container's link", "NETDEVICES, NET_CORE"},
		{container, "BRIDGE", Required, false, "containers that talk to each other and to the host", ""},
		{container, "NF_TABLES", Required, false, "CRIU makes a table when it starts, unless it was built without; published ports", "NETFILTER, NETFILTER_ADVANCED"},
		{container, "NF_TABLES_INET", Required, true, "CRIU makes a table when it starts", "NF_TABLES"},
		{container, "NF_TABLES_IPV4", Recommended, true, "published ports", "NF_TABLES"},
		{container, "NF_CONNTRACK", Recommended, false, "published ports", ""},
		{container, "NF_NAT", Recommended, false, "published ports", "NF_CONNTRACK"},
		{container, "NFT_NAT", Recommended, false, "published ports", "NF_NAT"},
		{container, "NFT_MASQ", Recommended, false, "the way out of a container", "NF_NAT"},
		{container, "NFT_CT", Recommended, false, "published ports", "NF_CONNTRACK"},
		{container, "NFT_FIB_IPV4", Recommended, false, "published ports", ""},
		{container, "NF_CT_NETLINK", Recommended, false, "CRIU's dump of connection tracking", "NF_CONNTRACK"},
		{container, "NETFILTER_XT_MARK", Recommended, false, "CRIU's network lock by iptables", "NETFILTER_XTABLES"},
		{container, "POSIX_MQUEUE", Required, true, "containers mount /dev/mqueue", ""},
		{container, "UNIX98_PTYS", Required, true, "terminals", ""},

		// What programs use, and CRIU carries.
		{programs, "SIGNALFD", Recommended, true, "programs with a signalfd", "EXPERT"},
		{programs, "TIMERFD", Recommended, true, "programs with a timerfd", "EXPERT"},
		{programs, "POSIX_TIMERS", Recommended, true, "programs with timers", "EXPERT"},
		{programs, "SYSVIPC", Recommended, true, "System V shared memory, semaphores, message queues", ""},
		{programs, "AIO", Recommended, true, "programs with io_setup(2)", "EXPERT"},
		{programs, "MEMFD_CREATE", Recommended, true, "programs with a memfd", "TMPFS or HUGETLBFS"},
		{programs, "HUGETLBFS", Recommended, true, "programs with huge pages", ""},
		{programs, "FANOTIFY", Recommended, true, "programs with fanotify marks", ""},
		{programs, "FILE_LOCKING", Recommended, true, "programs with file locks", "EXPERT"},
		{programs, "TUN", Recommended, false, "programs with a TUN or TAP device", "NETDEVICES, NET_CORE"},
		{programs, "IPV6", Recommended, false, "programs that listen on [::]", ""},
	}
}

// Check compares a configuration with what is needed, in the order of the
// table: what the lab needs to boot comes first.
func Check(c Config) []Row {
	var rows []Row
	for _, r := range requirements() {
		row := Row{Group: r.group, Option: "CONFIG_" + r.option, Level: r.level, For: r.use, State: c[r.option]}
		row.OK = row.State == "y" || row.State == "m" && !r.yes
		if row.State == "" {
			row.State = "missing"
		}
		if !row.OK {
			row.Remedy = row.Option + "=y"
			if !r.yes {
				row.Remedy += " or m"
			}
			if r.also != "" {
				row.Remedy += " (needs " + r.also + ")"
			}
		}
		rows = append(rows, row)
	}
	return rows
}
