package criufile

import (
	"strings"
	"sync"
)

// Kind is what a file holds. CRIU's source has the list in criu/image-desc.c and
// the magic numbers in criu/include/magic.h; they are coordinates of towns.
type Kind struct {
	// Name is CRIU's, without CR_FD_ and _MAGIC.
	Name string
	// Magic is 0 for raw files.
	Magic uint32
	// File is how CRIU names the files, a format of printf(3), without ".img".
	File string
	// Text says what a raw file is. It is empty for the others.
	Text string

	message string // of its entries
	first   string // of its first one, where that is another
	payload payload
	head    head // the usual one
}

// Raw says that the file has no head and no entries.
func (k Kind) Raw() bool { return k.Magic == 0 }

// head is how a file begins: with its own magic number only, as all files did
// before CRIU 1.6, or with another one before it.
type head uint8

const (
	headNone head = iota
	headCommon
	headService

	magicCommon  = 0x54564319
	magicService = 0x55105940
)

// entries makes a kind with entries of one message.
func entries(name string, magic uint32, file, message string) Kind {
	return Kind{Name: name, Magic: magic, File: file, message: message, head: headCommon}
}

func (k Kind) with(p payload) Kind     { k.payload = p; return k }
func (k Kind) begin(first string) Kind { k.first = first; return k }
func (k Kind) headed(h head) Kind      { k.head = h; return k }

func raw(name, file, text string) Kind { return Kind{Name: name, File: file, Text: text} }

// Kinds is every kind that CRIU up to 4.3 knows, in the order of its list, and
// the files that its plugins write.
func Kinds() []Kind {
	return []Kind{
		entries("INVENTORY", 0x58313116, "inventory", "inventory_entry").headed(headNone),
		entries("FDINFO", 0x56213732, "fdinfo-%u", "fdinfo_entry"),
		entries("PAGEMAP", 0x56084025, "pagemap-%u", "pagemap_entry").begin("pagemap_head"),
		entries("PAGEMAP", 0x56084025, "pagemap-shmem-%u", "pagemap_entry").begin("pagemap_head"), // SHMEM_PAGEMAP
		entries("REG_FILES", 0x50363636, "reg-files", "reg_file_entry"),
		entries("EXT_FILES", 0x59255641, "ext-files", "ext_file_entry"),
		entries("NS_FILES", 0x61394011, "ns-files", "ns_file_entry"),
		entries("EVENTFD_FILE", 0x44523722, "eventfd", "eventfd_file_entry"),
		entries("EVENTPOLL_FILE", 0x45023858, "eventpoll", "eventpoll_file_entry"),
		entries("EVENTPOLL_TFD", 0x44433746, "eventpoll-tfd", "eventpoll_tfd_entry"),
		entries("SIGNALFD", 0x57323820, "signalfd", "signalfd_entry"),
		entries("INOTIFY_FILE", 0x48424431, "inotify", "inotify_file_entry"),
		entries("INOTIFY_WD", 0x54562009, "inotify-wd", "inotify_wd_entry"),
		entries("FANOTIFY_FILE", 0x55096122, "fanotify", "fanotify_file_entry"),
		entries("FANOTIFY_MARK", 0x56506035, "fanotify-mark", "fanotify_mark_entry"),
		entries("CORE", 0x55053847, "core-%u", "core_entry"),
		entries("IDS", 0x54432030, "ids-%u", "task_kobj_ids_entry"),
		entries("MM", 0x57492820, "mm-%u", "mm_entry"),
		entries("VMAS", 0x54123737, "vmas-%u", "vma_entry"),
		entries("PIPES", 0x56513555, "pipes", "pipe_entry"),
		entries("PIPES_DATA", 0x56453709, "pipes-data", "pipe_data_entry").with(payloadBytes),
		entries("FIFO", 0x58364939, "fifo", "fifo_entry"),
		entries("FIFO_DATA", 0x59333054, "fifo-data", "pipe_data_entry").with(payloadBytes),
		entries("PSTREE", 0x50273030, "pstree", "pstree_entry"),
		entries("SIGACT", 0x55344201, "sigacts-%u", "sa_entry"),
		entries("UNIXSK", 0x54373943, "unixsk", "unix_sk_entry"),
		entries("INETSK", 0x56443851, "inetsk", "inet_sk_entry"),
		entries("PACKETSK", 0x60454618, "packetsk", "packet_sock_entry"),
		entries("NETLINK_SK", 0x58005614, "netlinksk", "netlink_sk_entry"),
		entries("SK_QUEUES", 0x56264026, "sk-queues", "sk_packet_entry").with(payloadBytes),
		entries("ITIMERS", 0x57464056, "itimers-%u", "itimer_entry"),
		entries("POSIX_TIMERS", 0x52603957, "posix-timers-%u", "posix_timer_entry"),
		entries("CREDS", 0x54023547, "creds-%u", "creds_entry"),
		entries("UTSNS", 0x54473203, "utsns-%u", "utsns_entry"),
		entries("IPC_VAR", 0x53115007, "ipcns-var-%u", "ipc_var_entry"),
		entries("IPCNS_SHM", 0x46283044, "ipcns-shm-%u", "ipc_shm_entry").with(payloadBytes),
		entries("IPCNS_MSG", 0x55453737, "ipcns-msg-%u", "ipc_msg_entry").with(payloadMessages),
		entries("IPCNS_SEM", 0x59573019, "ipcns-sem-%u", "ipc_sem_entry").with(payloadSemaphores),
		entries("FS", 0x51403912, "fs-%u", "fs_entry"),
		entries("REMAP_FPATH", 0x59133954, "remap-fpath", "remap_file_path_entry"),
		entries("GHOST_FILE", 0x52583605, "ghost-file-%x", "ghost_chunk_entry").begin("ghost_file_entry").with(payloadBytes),
		entries("MEMFD_INODE", 0x48453499, "memfd", "memfd_inode_entry"),
		entries("TCP_STREAM", 0x51465506, "tcp-stream-%x", "tcp_stream_entry").with(payloadQueues),
		entries("MNTS", 0x55563928, "mountpoints-%u", "mnt_entry"),
		entries("NETDEV", 0x57373951, "netdev-%u", "net_device_entry"),
		entries("NETNS", 0x55933752, "netns-%u", "netns_entry"),
		raw("IFADDR", "ifaddr-%u", "addresses, of `ip addr save`"),
		raw("ROUTE", "route-%u", "IPv4 routes, of `ip route save`"),
		raw("ROUTE6", "route6-%u", "IPv6 routes, of `ip -6 route save`"),
		raw("RULE", "rule-%u", "routing rules, of `ip rule save`"),
		raw("IPTABLES", "iptables-%u", "text of iptables-save"),
		raw("IP6TABLES", "ip6tables-%u", "text of ip6tables-save"),
		raw("NFTABLES", "nftables-%u", "text of `nft list ruleset`"),
		raw("TMPFS_IMG", "tmpfs-%u.tar.gz", "a tar archive of a tmpfs"),
		raw("TMPFS_DEV", "tmpfs-dev-%u.tar.gz", "a tar archive of a devtmpfs"),
		entries("AUTOFS", 0x49353943, "autofs-%u", "autofs_entry"),
		entries("BINFMT_MISC", 0x67343323, "binfmt-misc-%u", "binfmt_misc_entry"), // BINFMT_MISC_OLD
		entries("BINFMT_MISC", 0x67343323, "binfmt-misc", "binfmt_misc_entry"),
		entries("TTY_FILES", 0x59433025, "tty", "tty_file_entry"),
		entries("TTY_INFO", 0x59453036, "tty-info", "tty_info_entry"),
		entries("TTY_DATA", 0x59413026, "tty-data", "tty_data_entry"),
		entries("FILE_LOCKS", 0x54323616, "filelocks", "file_lock_entry"),
		entries("RLIMIT", 0x57113925, "rlimit-%u", "rlimit_entry"),
		raw("PAGES", "pages-%u", "pages of memory"),
		raw("SHM_PAGES_OLD", "pages-shmem-%u", "pages of shared memory"),
		entries("SIGNAL", 0x59255647, "signal-s-%u", "siginfo_entry"),
		entries("SIGNAL", 0x59255647, "signal-p-%u", "siginfo_entry"), // PSIGNAL
		entries("TUNFILE", 0x57143751, "tunfile", "tunfile_entry"),
		entries("CGROUP", 0x59383330, "cgroup", "cgroup_entry"),
		entries("TIMERFD", 0x50493712, "timerfd", "timerfd_entry"),
		entries("CPUINFO", 0x61404013, "cpuinfo", "cpuinfo_entry"),
		entries("SECCOMP", 0x64413049, "seccomp", "seccomp_entry"),
		entries("USERNS", 0x55474906, "userns-%u", "userns_entry"),
		raw("NETNF_CT", "netns-ct-%u", "netlink messages of connection tracking"),
		raw("NETNF_EXP", "netns-exp-%u", "netlink messages of expected connections"),
		entries("FILES", 0x56303138, "files", "file_entry"),
		entries("TIMENS", 0x43114433, "timens-%u", "timens_entry"),
		entries("PIDNS", 0x61157326, "pidns-%u", "pidns_entry"),
		entries("BPFMAP_FILE", 0x57506142, "bpfmap-file", "bpfmap_file_entry"),
		entries("BPFMAP_DATA", 0x64324033, "bpfmap-data", "bpfmap_data_entry").with(payloadBytes),
		entries("APPARMOR", 0x59423047, "apparmor", "apparmor_entry"),
		entries("PIDFD", 0x54435556, "pidfd", "pidfd_entry"),
		entries("STATS", 0x57093306, "stats-%s", "stats_entry").headed(headService),
		entries("IRMAP_CACHE", 0x57004059, "irmap-cache", "irmap_cache_entry").headed(headService),
		raw("AMDGPU", "amdgpu-%s", "state of a GPU, of CRIU's plugin for AMD's"),
	}
}

// kinds are Kinds, made once: they are looked through for every file.
var kinds struct {
	once sync.Once
	all  []Kind
}

// kindOf finds the kind with a magic number, or with a name.
func kindOf(is func(Kind) bool) (Kind, bool) {
	kinds.once.Do(func() { kinds.all = Kinds() })
	for _, k := range kinds.all {
		if is(k) {
			return k, true
		}
	}
	return Kind{}, false
}

// rawKind is the kind of a raw file, which only its name tells.
func rawKind(name string) (Kind, bool) {
	return kindOf(func(k Kind) bool { return k.Raw() && k.names(name) })
}

// names tells whether CRIU calls a file of this kind so.
func (k Kind) names(name string) bool {
	name = strings.TrimSuffix(name, ".img")
	before, after, variable := strings.Cut(k.File, "%")
	if !variable {
		return name == k.File
	}
	rest, begins := strings.CutPrefix(name, before)
	rest, ends := strings.CutSuffix(rest, after[1:])
	if !begins || !ends || rest == "" {
		return false
	}
	digits := map[byte]string{'u': "0123456789", 'x': "0123456789abcdef"}[after[0]]
	return digits == "" || strings.Trim(rest, digits) == ""
}

// IsPages tells whether a file of this name holds pages of memory.
func IsPages(name string) bool {
	k, raw := rawKind(name)
	return raw && (k.Name == "PAGES" || k.Name == "SHM_PAGES_OLD")
}
