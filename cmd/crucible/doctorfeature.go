package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"crucible/checkpoint/criu"
	"crucible/container/host"
)

// feature is what there is to say about a feature that CRIU has a name for.
type feature struct {
	told   string // GROUP/NAME of the row that is about the same
	costs  string // of not having it
	remedy string
}

// featureOf knows the features of CRIU 4.2 (criu/cr-check.c); a newer one may
// have more.
func featureOf(name string) feature {
	const kernel = "a newer kernel"
	f, known := map[string]feature{
		"mem_dirty_track":          {told: "memory/soft-dirty", costs: "no pre-copy", remedy: "build the kernel with CONFIG_MEM_SOFT_DIRTY=y"},
		"uffd":                     {told: "memory/userfaultfd", costs: "no lazy pages", remedy: "build the kernel with CONFIG_USERFAULTFD=y"},
		"uffd-noncoop":             {told: "memory/userfaultfd", costs: "no lazy pages", remedy: "build the kernel with CONFIG_USERFAULTFD=y"},
		"pagemap_scan":             {told: "memory/pagemap scan", costs: "page tables are read entry by entry", remedy: kernel},
		"userns":                   {told: "namespaces/user", costs: "no containers in a user namespace", remedy: "build the kernel with CONFIG_USER_NS=y"},
		"timens":                   {told: "namespaces/time", costs: "no containers in a time namespace", remedy: "build the kernel with CONFIG_TIME_NS=y"},
		"cgroupns":                 {told: "namespaces/cgroup", costs: "no containers in a cgroup namespace", remedy: kernel},
		"seccomp_filters":          {told: "kernel/seccomp filter", costs: "programs with a seccomp filter cannot be checkpointed", remedy: "build the kernel with CONFIG_SECCOMP_FILTER=y"},
		"clone3_set_tid":           {told: "kernel/choose a pid", costs: "pids are chosen by way of ns_last_pid, one process at a time", remedy: kernel},
		"openat2":                  {told: "kernel/openat2", costs: "paths are looked up step by step", remedy: kernel},
		"net_diag_raw":             {told: "network/other sockets' diagnosis", costs: "CRIU cannot list raw sockets, and refuses some", remedy: "load the module: modprobe raw_diag"},
		"network_lock_nftables":    {told: "criu/network lock"},
		"has_ipt_legacy":           {told: "criu/network lock"},
		"apparmor_stacking":        {costs: "programs in an AppArmor namespace of their own cannot be checkpointed; crucible makes none", remedy: "none needed without AppArmor; else " + kernel + " that is booted with apparmor=1"},
		"seccomp_suspend":          {costs: "programs with a seccomp filter cannot be checkpointed", remedy: "build the kernel with CONFIG_CHECKPOINT_RESTORE=y and CONFIG_SECCOMP=y"},
		"loginuid":                 {costs: "the login uid of processes is not kept", remedy: "build the kernel with CONFIG_AUDIT=y"},
		"tun":                      {costs: "programs with a TUN device cannot be checkpointed", remedy: "load the module: modprobe tun"},
		"tun_ns":                   {costs: "programs with a TUN device cannot be checkpointed", remedy: kernel},
		"autofs":                   {costs: "containers with automounts cannot be checkpointed", remedy: "load the module: modprobe autofs4"},
		"compat_cr":                {costs: "32-bit programs cannot be checkpointed", remedy: "a kernel with CONFIG_IA32_EMULATION=y, and a CRIU built for it"},
		"can_map_vdso":             {costs: "32-bit programs cannot be restored", remedy: kernel},
		"aio_remap":                {costs: "programs with asynchronous I/O (io_setup) cannot be restored", remedy: "build the kernel with CONFIG_AIO=y"},
		"timerfd":                  {costs: "programs with a timerfd cannot be checkpointed", remedy: "build the kernel with CONFIG_CHECKPOINT_RESTORE=y"},
		"fdinfo_lock":              {costs: "file locks cannot be seen", remedy: kernel},
		"tcp_half_closed":          {costs: "TCP connections that are half closed cannot be checkpointed", remedy: kernel},
		"kcmp_epoll":               {costs: "programs that poll a duplicated descriptor cannot be checkpointed", remedy: "build the kernel with CONFIG_KCMP=y"},
		"nftables":                 {costs: "nftables rules in network namespaces inside of a container cannot be kept", remedy: "run scripts/setup, which builds CRIU with libnftables"},
		"pidfd_store":              {costs: "a pid that is used again between two pre-dumps is not found out", remedy: kernel},
		"get_rseq_conf":            {costs: "programs with restartable sequences cannot be checkpointed", remedy: "build the kernel with CONFIG_RSEQ=y and CONFIG_CHECKPOINT_RESTORE=y"},
		"sockopt_buf_lock":         {costs: "a socket's fixed buffer size is not kept", remedy: kernel},
		"memfd_hugetlb":            {costs: "memory files in huge pages cannot be checkpointed", remedy: "build the kernel with CONFIG_HUGETLBFS=y"},
		"ipv6_freebind":            {costs: "the option IPV6_FREEBIND of sockets is not kept", remedy: kernel},
		"timer_cr_ids":             {costs: "POSIX timers with large numbers take long to restore", remedy: kernel},
		"pagemap_scan_guard_pages": {costs: "guard pages (MADV_GUARD_INSTALL) cannot be checkpointed", remedy: kernel},
	}[name]
	if !known {
		f = feature{costs: "what uses it cannot be checkpointed, or not as fast", remedy: kernel + " (see criu.org/Linux_kernel for its options)"}
	}
	return f
}

// featureRows asks for each feature that CRIU has a name for; those that are
// there share a row, and those that another row is about are left to it.
func featureRows(ctx context.Context, found *criu.CRIU) []host.Row {
	all := host.Row{
		Group: groupCRIU, Name: "features",
		Costs: "what is missing shows only when a checkpoint or a restore fails", Remedy: "run scripts/setup",
	}
	features, err := found.Features(ctx)
	if err != nil {
		all.Detail = oneLine(err)
		return []host.Row{all}
	}
	have := 0
	var rows []host.Row
	for _, f := range features {
		row := host.Row{Group: groupCRIU, Name: f.Name, Detail: f.Detail}
		row.Costs, row.Remedy = featureOf(f.Name).costs, featureOf(f.Name).remedy
		switch f.State {
		case criu.Have:
			have++
			continue
		case criu.HaveNot:
			row.State = host.Missing
		}
		rows = append(rows, row)
	}
	all = goodRow(all, fmt.Sprintf("%d of the %d that it can ask about", have, len(features)))
	return append([]host.Row{all}, rows...)
}

// dropTold leaves out features whose absence another row tells already.
func dropTold(rows []host.Row) []host.Row {
	bad := map[string]bool{"criu/network lock": true} // that row is what they add up to
	for _, row := range rows {
		if row.State != host.Good {
			bad[row.Group+"/"+row.Name] = true
		}
	}
	var kept []host.Row
	for _, row := range rows {
		if row.Group != groupCRIU || !bad[featureOf(row.Name).told] {
			kept = append(kept, row)
		}
	}
	return kept
}

// lockRow is about the ways in which CRIU itself can hold packets back.
// Crucible skips that for a container with a link of its own, which it closes.
func lockRow(locks []criu.Row) host.Row {
	row := host.Row{
		Group: groupCRIU, Name: "network lock", State: host.Missing,
		Costs:  "a container on the host's network cannot be checkpointed while it has TCP connections",
		Remedy: "load the module: modprobe nf_tables; or run scripts/setup, which builds CRIU with libnftables",
	}
	var have, not []string
	for _, l := range locks {
		switch l.State {
		case criu.Have:
			have = append(have, l.Name)
		default:
			not = append(not, fmt.Sprintf("%s (%s)", l.Name, l.Detail))
		}
		if l.Name == "nftables" && l.State == criu.Unknown {
			row.State = host.Unknown
		}
		if l.Name == "nftables" && l.State == criu.Have {
			row = goodRow(row, "")
		}
	}
	row.Detail = "can be used: " + dash(strings.Join(have, ", "))
	if not != nil {
		row.Detail += "; cannot: " + strings.Join(not, ", ")
	}
	return row
}

// notAsked are the rows for somebody whose rights CRIU does not even start
// with: its no would mean nothing.
func notAsked(works host.Row) []host.Row {
	rows := []host.Row{works}
	for _, name := range []string{"network lock", "features"} {
		rows = append(rows, host.Row{Group: groupCRIU, Name: name, Costs: "it is not known what cannot be checkpointed"})
	}
	for i := range rows {
		rows[i].State, rows[i].Detail, rows[i].Remedy = host.Unknown, "not asked: needs root's rights", "run crucible doctor as root"
	}
	return rows
}

// mayAsk tells whether CRIU's answers mean something.
func mayAsk() bool { return os.Geteuid() == 0 }
