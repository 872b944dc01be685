package criu

import "syscall"

// taskCauses: criu/cr-dump.c, criu/proc_parse.c, criu/seize.c, criu/pstree.c,
// criu/seccomp.c, criu/mem.c, criu/uffd.c, compel/src/lib/infect.c.
func taskCauses() []known {
	return []known{
		{Kind: "self", Pattern: "The criu itself is within dumped tree",
			Remedy: "CRIU was started from inside the container: run crucible outside of it"},
		{Kind: "traced", Pattern: "Unseizable non-zombie {pid} found, state",
			Remedy: "a debugger or strace holds the task: let it go first"},
		{Kind: "traced", Pattern: "Can't attach to {pid}", Remedy: "a debugger or strace holds the task: let it go first"},
		{Kind: "stop-signal", Pattern: "SEIZE {pid}: unsupported stop signal {signal}", Remedy: "continue the stopped task with SIGCONT first"},
		{Kind: "sigtrap", Pattern: "Can't dump the {pid} thread with a pending SIGTRAP", Remedy: "a debugger has just let go of the task: try again"},
		{Kind: "rlimit", Pattern: "Can't get rlimit {limit}: Operation not permitted",
			Remedy: "without CAP_SYS_RESOURCE a task of another user's can be dumped in a user namespace only: run the container with one"},
		{Kind: "mapping", Pattern: "Unsupported mapping found {address}", Errno: syscall.ENOTSUP,
			Remedy: "CRIU cannot save this memory (a device's, an io_uring's or memfd_secret's): let the program unmap it first"},
		{Kind: "mapping", Pattern: "Can't handle non-regular mapping on {pid}'s map {address}", Errno: syscall.ENOTSUP,
			Remedy: "CRIU cannot save this memory (a device's, an io_uring's or memfd_secret's): let the program unmap it first"},
		{Kind: "mapping", Pattern: "Unknown shit ", Errno: syscall.ENOTSUP,
			Remedy: "CRIU cannot save this memory (a device's, an io_uring's or memfd_secret's): let the program unmap it first"},
		{Kind: "uprobes", Pattern: "PID {pid} has uprobes vma", Remedy: "end the tracing, or --criu-option allow-uprobes"},
		{Kind: "sysv-shm", Pattern: "Task {pid} with SysVIPC shmem map @{address} doesn't live in IPC ns",
			Remedy: "SysV shared memory needs an IPC namespace: run the container with one"},
		{Kind: "arch-32", Pattern: "Can't dump task {pid} running in 32-bit mode", Remedy: "this CRIU was built without support for 32-bit programs"},
		{Kind: "rseq", Pattern: "{pid} has rseq but kernel lacks get_rseq_conf feature", Remedy: "a kernel from 5.13 on is needed, or GLIBC_TUNABLES=glibc.pthread.rseq=0"},
		{Kind: "seccomp", Pattern: "Kernel doesn't support PTRACE_O_SUSPEND_SECCOMP", Remedy: "the kernel needs CONFIG_CHECKPOINT_RESTORE and CONFIG_SECCOMP_FILTER"},
		{Kind: "seccomp", Pattern: "Dumping seccomp filters not supported", Remedy: "the kernel needs CONFIG_CHECKPOINT_RESTORE; CRIU needs CAP_SYS_ADMIN in the first user namespace"},
		{Kind: "seccomp", Pattern: "suspending seccomp failed",
			Remedy: "crucible itself runs under seccomp, and the kernel lets no such process suspend another's filter: run it without"},
		{Kind: "seccomp", Pattern: "couldn't suspend seccomp", Remedy: "crucible itself runs under seccomp: run it without"},
		{Kind: "freezer", Pattern: "Unable to freeze cgroup {cgroup} (",
			Remedy: "a task does not freeze: it hangs in the kernel (a dead network file system, perhaps)"},
		{Kind: "freezer-path", Pattern: "Neither a cgroupv1 (freezer.state) or cgroupv2", Remedy: "the path is no freezer cgroup"},
		{Kind: "timeout", Pattern: "Timeout reached. Try to interrupt:",
			Remedy: "the tasks could not be stopped in time: raise --timeout, or see which one hangs in the kernel"},
		{Kind: "cgroup-frozen", Pattern: "zombie {pid} (comm {_}) found while seizing", Remedy: "a task was just ending: try again"},
		{Kind: "zombie-threads", Pattern: "Zombie thread not supported", Remedy: "a thread was just ending: try again"},
		{Kind: "zombie-threads", Pattern: "Zombies with threads are not supported", Remedy: "the main thread has ended and others live on: CRIU cannot save that"},
		{Kind: "threads-stopped", Pattern: "Individually stopped threads not supported", Remedy: "continue the stopped threads with SIGCONT first"},
		{Kind: "session-outside", Pattern: "A session leader of {pid}({_}) is outside of its pid namespace",
			Remedy: "a process that was put into the container from outside must get a session of its own (setsid)"},
		{Kind: "task-outside", Pattern: "Unexpected task {pid} in a tree", Remedy: "a process in the container is not below its first one: let it end first"},
		{Kind: "pid-conflict", Pattern: "Conflict with a dead task with the same PID as of this thread", Remedy: "a number was used twice meanwhile: try again"},
		{Kind: "parasite", Pattern: "Unexpected {pid} task interruption, aborting", Remedy: "the task was hit by a signal while CRIU was in it: try again"},
		{Kind: "uffd", Pattern: "UFFD is not supported", Errno: syscall.ENOTSUP,
			Remedy: "lazy pages need a kernel with CONFIG_USERFAULTFD and the right to use it (vm.unprivileged_userfaultfd)"},
		{Kind: "uffd", Pattern: "Unable to open an userfaultfd descriptor",
			Remedy: "lazy pages need the right to use userfaultfd (CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd=1)"},
		{Kind: "uffd", Pattern: "Non-cooperative UFFD is not supported", Errno: syscall.ENOTSUP, Remedy: "lazy pages need a kernel from 4.11 on"},
		{Kind: "uffd", Pattern: "connect to lazy-pages.socket failed", Remedy: "the lazy page loader is not there: start it before the restore, with the same work directory"},
		{Kind: "guard-pages", Pattern: "Collect MADV_GUARD_INSTALL pages", Remedy: "the memory has guard pages that this kernel cannot list: update it"},
	}
}

// mountCauses: criu/mount.c, criu/mount-v2.c, criu/filesystems.c.
func mountCauses() []known {
	return []known{
		{Kind: "mount-sharing", Pattern: "Mount {mount} {path} (master_id: {_} shared_id: {_}) has unreachable sharing",
			Remedy: "the mount gets its events from outside: make it private in the container, or name it as external"},
		{Kind: "mount-root", Pattern: "{mount} doesn't have a proper root mount",
			Remedy: "the mount shows a directory from outside: name it as external"},
		{Kind: "mount-fs", Pattern: "FS mnt {path} dev {device} root {_} unsupported id {mount}", Errno: syscall.ENOTSUP,
			Remedy: "CRIU cannot save this file system: name the mount as external, or unmount it"},
		{Kind: "mount-fuse", Pattern: "{path} is a fuse mount but not external", Remedy: "name the FUSE mount as external, or unmount it"},
		{Kind: "mount-external", Pattern: "Mount {mount}:{path} is autodetected external mount.", Remedy: "name the mount as external"},
		{Kind: "mount-external", Pattern: "No mapping for {mount} mountpoint", Remedy: "the restore needs a source for every mount that was external on dump"},
		{Kind: "mount-failed", Pattern: "A few mount points can't be mounted", Remedy: "a mount's source is missing here: see the lines after it in the log"},
		{Kind: "mount-missing", Pattern: "Can't mount at {path}: No such file or directory",
			Remedy: "the mount point is missing in the new root file system"},
		{Kind: "mount-root-option", Pattern: "The --root option is required to restore a mount namespace", Remedy: "name the new root file system"},
		{Kind: "mount-task-root", Pattern: "The root task has another root than mntns: {path}",
			Remedy: "the container's first process has changed its root (chroot): CRIU needs it in the mount namespace's own root"},
		{Kind: "mount-overmounted", Pattern: "The mount {mount} is overmounted so paths are invisible", Remedy: "unmount what covers it"},
		{Kind: "tmpfs", Pattern: "Can't dump tmpfs content",
			Remedy: "tar could not save a tmpfs (it changed meanwhile, or tar is missing): name the mount as external"},
		{Kind: "tmpfs", Pattern: "Can't restore tmpfs content", Remedy: "tar could not fill a tmpfs: is tar installed, and is there room?"},
		{Kind: "overlay", Pattern: "Unable to configure overlayfs", Remedy: "an overlay mounted inside the container does not restore: mount it from outside"},
		{Kind: "overlay", Pattern: "Unable to create overlayfs", Remedy: "an overlay mounted inside the container does not restore: mount it from outside"},
	}
}

// namespaceCauses: criu/namespaces.c, criu/cgroup.c, criu/lsm.c,
// criu/apparmor.c.
func namespaceCauses() []known {
	return []known{
		{Kind: "namespace-nested", Pattern: "Can't dump nested {kind} namespace for {pid}", Errno: syscall.ENOTSUP,
			Remedy: "CRIU cannot save a container inside of a container: end the inner one first"},
		{Kind: "namespace-user", Pattern: "One or more namespaces doesn't belong to the target user namespace",
			Remedy: "make every namespace of the container inside its user namespace, or keep the network namespace outside of CRIU"},
		{Kind: "namespace-init", Pattern: "Can't dump a pid namespace without the process init", Remedy: "name the container's first process, not another one"},
		{Kind: "namespace-net", Pattern: "Unable to find an external netns: {key}", Remedy: "the restore needs the network namespace that was external on dump"},
		{Kind: "namespace-socket", Pattern: "Unable to dump a socket from an external network namespace",
			Remedy: "a socket belongs to a network namespace outside of the container: let the program close it"},
		{Kind: "cgroup", Pattern: "Can't move into {cgroup}", Remedy: "the cgroup cannot be joined: let crucible place the tasks (manage-cgroups=ignore)"},
		{Kind: "cgroup-controllers", Pattern: "controller {controller} not found", Remedy: "let crucible place the tasks (manage-cgroups=ignore)"},
		{Kind: "apparmor", Pattern: "apparmor LSM specified but apparmor not supported by kernel",
			Remedy: "the image was made under AppArmor and this kernel has none: restore on one that has it"},
		{Kind: "apparmor", Pattern: "apparmor parsing failed", Remedy: "AppArmor refuses the image's profile: load it by hand, or restore without one"},
		{Kind: "selinux", Pattern: "selinux LSM specified but selinux not supported by kernel",
			Remedy: "the image was made under SELinux and this kernel has none: restore on one that has it"},
		{Kind: "lsm", Pattern: "can't write lsm profile", Remedy: "the image's security profile is not loaded here, or crucible may not use it"},
	}
}

// restoreCauses: criu/cr-restore.c, criu/files-reg.c, criu/image.c,
// criu/pagemap.c, criu/arch/x86/cpu.c.
func restoreCauses() []known {
	return []known{
		{Kind: "pid-in-use", Pattern: "Can't fork for {pid}: File exists",
			Remedy: "the process number is taken: restore into a pid namespace of its own, or end who has it"},
		{Kind: "pid-in-use", Pattern: "Pid {pid} do not match expected {expected}",
			Remedy: "the process number is taken: restore into a pid namespace of its own, or end who has it"},
		{Kind: "no-memory", Pattern: "Unable to map ANON_VMA: Cannot allocate memory",
			Remedy: "the kernel refuses what the program has reserved, which may be more than there is: sysctl vm.overcommit_memory=1, or more memory"},
		{Kind: "pid-namespace", Pattern: "This process tree can only be restored", Remedy: "restore into a pid namespace of its own"},
		{Kind: "session-in-use", Pattern: "Current sid {sid} intersects with", Remedy: "restore from another session, or into a pid namespace of its own"},
		{Kind: "session-in-use", Pattern: "Current gid {gid} intersects with pgid", Remedy: "restore from another process group, or into a pid namespace of its own"},
		{Kind: "file-missing", Pattern: "Can't open file {path} on restore: No such file or directory",
			Remedy: "the program's file is missing in the new root file system: bring it there"},
		{Kind: "file-missing", Pattern: "Can't open file {path}: No such file or directory",
			Remedy: "the program's file is missing in the new root file system: bring it there"},
		{Kind: "file-changed", Pattern: "File {path} has bad size {size} (expect {expected})",
			Remedy: "the file was changed since the checkpoint: put the old one back"},
		{Kind: "file-changed", Pattern: "File {path} has bad build-ID", Remedy: "the program or library was updated since the checkpoint: put the old one back"},
		{Kind: "file-changed", Pattern: "File {path} has bad mode {mode} (expect {expected})",
			Remedy: "the file's permissions were changed since the checkpoint: put the old ones back, or --criu-option skip-file-rwx-check"},
		{Kind: "file-open", Pattern: "Can't open file {path} on restore: {_}", Remedy: "the program's file cannot be opened in the new root file system"},
		{Kind: "cpu", Pattern: "CPU capabilities do not match run time",
			Remedy: "this CPU lacks what the program may be using: restore on one like the first; `crucible image show` names it"},
		{Kind: "cpu", Pattern: "CPU instruction capabilities do not match run time",
			Remedy: "this CPU lacks what the program may be using: restore on one like the first"},
		{Kind: "cpu", Pattern: "CPU Feature {feature} required by image", Remedy: "this CPU lacks what the program may be using: restore on one like the first"},
		{Kind: "cpu", Pattern: "CPU xsave size mismatch", Remedy: "this CPU's registers differ from the first one's: restore on one like the first"},
		{Kind: "image-magic", Pattern: "Magic doesn't match for {image}", Remedy: "the image is damaged, or made by a CRIU of another kind: `crucible image verify`"},
		{Kind: "image-magic", Pattern: "Head magic doesn't match for {image}", Remedy: "the image is damaged: `crucible image verify`"},
		{Kind: "image-version", Pattern: "Not supported images version {version}", Remedy: "the image was made by another CRIU: restore with that one"},
		{Kind: "image-version", Pattern: "Too old image, no longer supported", Remedy: "the image was made by an old CRIU: restore with that one"},
		{Kind: "image-damaged", Pattern: "orrupted", Remedy: "the image is damaged: `crucible image verify`"},
		{Kind: "image-damaged", Pattern: "Unexpected EOF on {image}", Remedy: "the image is damaged: `crucible image verify`"},
		{Kind: "image-damaged", Pattern: "Reached EOF unexpectedly while reading page from image", Remedy: "the image's pages are cut short: `crucible image verify`"},
		{Kind: "image-damaged", Pattern: "Can't open core data for {pid}", Remedy: "the image is not complete: `crucible image verify`"},
		{Kind: "image-parent", Pattern: "No parent for snapshot pagemap", Remedy: "the image needs the one it was built upon: `crucible image show` names it"},
		{Kind: "image-missing", Pattern: "Unable to open {image}: No such file or directory", Remedy: "the image is not complete: `crucible image verify`"},
		{Kind: "restorer-memory", Pattern: "No suitable area for task_restore bootstrap", Remedy: "the program fills its address space so that CRIU finds no place in it"},
		{Kind: "kernel-task-size", Pattern: "because kernel does only support vmas up to", Remedy: "the image was made on a kernel with a larger address space (5-level page tables)"},
	}
}

// generalCauses end the table: what only the errno tells.
func generalCauses() []known {
	return []known{
		{Kind: "no-space", Pattern: ": No space left on device", Remedy: "make room on the file system of the images, or of the root file system"},
		{Kind: "no-space", Pattern: ": Disk quota exceeded", Remedy: "make room on the file system of the images"},
		{Kind: "no-memory", Pattern: ": Cannot allocate memory", Remedy: "there is not enough memory, or a cgroup's limit is too low"},
		{Kind: "too-many-files", Pattern: ": Too many open files", Remedy: "raise the limit of open files (ulimit -n, fs.nr_open)"},
		{Kind: "read-only", Pattern: ": Read-only file system", Remedy: "CRIU must be able to write there"},
	}
}
