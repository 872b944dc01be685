// Package confine is what a container's process is confined to: identity,
// capabilities, limits, system call filter, sysctls, masked paths, and the
// executable that starts it all.
//
// Everything here is called in the container's init (or in the process that
// joins a container): a Go process whose main goroutine is locked to its
// thread and which ends in Identity.Exec. Capabilities, user ids,
// no_new_privs and filters belong to a thread, not to a process; what counts
// is the thread that executes the program, because the kernel ends all others.
// So call everything from the locked goroutine.
//
// # The order
//
// Each step needs something that a later one takes away:
//
//	SetRlimits, SetOOMScoreAdj  need CAP_SYS_RESOURCE to go beyond today's value
//	WriteSysctls                after the namespaces exist
//	ReadonlyPath, MaskPath      need CAP_SYS_ADMIN
//	CloseFDs, CheckCwd          nothing of the host is left open or below us
//	Identity.Become
//	    bounding set            needs CAP_SETPCAP
//	    keepcaps, groups, gid, uid
//	    permitted, effective, inheritable, then ambient (needs both)
//	    no_new_privs
//	Identity.Exec
//	    filter                  needs no_new_privs or CAP_SYS_ADMIN
//	    execve                  takes away a CAP_SYS_ADMIN that was kept for the filter
//
// # Example
//
//	id := confine.Identity{User: p.User, Capabilities: p.Capabilities,
//		NoNewPrivileges: p.NoNewPrivileges, Filter: filter}
//	if err := id.Become(); err != nil {
//		return err
//	}
//	waitForStart()
//	return id.Exec("/bin/sh", []string{"sh"}, os.Environ())
//
// # What it does not do
//
// It creates no namespace, mounts no root filesystem and knows no cgroup. It
// does not compile filters: that is confine/seccomp, called in the command, so
// that a container's init carries instructions only. SELinux and AppArmor
// labels are not supported.
package confine
