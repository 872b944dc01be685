package criu

import "strings"

// harmless says whether CRIU writes this as an error and goes on unharmed.
func harmless(text string) bool {
	for _, s := range []string{
		// Without CAP_SYS_RESOURCE the limit stays what it was
		// (criu/rst-malloc.c and criu/util.c: rlimit_unlimit_nofile).
		"rlimit: Can't setup RLIMIT_NOFILE",
		// criu/log.c prints it when the host name cannot be had.
		"Reading kernel version failed!",
		// criu/cr-restore.c: a sibling is waited for by its parent, not by CRIU.
		"Unable to wait ",
		"Post-resume script ret code",
		"Pre-resume script ret code",
		"Unable to restore rseq_cs state",
		// criu/page-xfer.c: a process that its parent images do not have is new.
		"No parent image found, though parent directory is set",
		// criu/cr-service.c answers that it got no second request.
		"RPC error:",
	} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// final says whether this is the last word on a dump or a restore.
func final(text string) bool {
	for _, s := range []string{"Dumping FAILED.", "Pre-dumping FAILED.", "Restoring FAILED."} {
		if strings.HasPrefix(text, s) {
			return true
		}
	}
	return false
}

// consequence says whether this error only tells that another one came
// before it. All of them are from CRIU's way out.
func consequence(text string) bool {
	if final(text) {
		return true
	}
	for _, s := range []string{
		// criu/cr-dump.c: dump_one_task
		"Dump files (pid:", "Dump core (pid:", "Dump mappings (pid:", "Dump fs (pid:", "Dump ids (pid:",
		"Dump eventpoll (pid:", "Dump cgroup of threads", "Collect mappings (pid:", "Collect fds (pid:",
		"Can't infect (pid:", "Can't cure (pid:", "Can't dump misc (pid:", "Can't dump threads",
		"Can't dump page with parasite", "Can't stop daemon in parasite", "Can't dump sigactions (pid:",
		"Can't dump itimers (pid:", "Can't dump posix timers (pid:", "Can't fixup vdso VMAs (pid:",
		"Pre-dumping files failed", "Can't dump thread for pid", "Can't dump unprotect vmas",
		"Namespaces dumping finished with error",
		"Lazy pages transfer FAILED",
		// criu/cr-dump.c and criu/cr-restore.c: the caller said no
		"One of more action scripts failed", "RPC client reported script error",
		"Pre dump script failed", "Aborting restore due to",
		// criu/crtools.c
		"Could not initialize kernel features detection",
		// criu/cr-restore.c: sigchld_process and restore_root_task
		"exited, status=", "killed by signal", "stopped by signal", "exited, status= ",
		"Killing processes because of failure on restore", "Can't catch all tasks",
		"died too early", "Failed to wait on helpers and zombies", "Can't stop all tasks on rt_sigreturn",
		// criu/files.c, criu/cr-restore.c: an object that could not be opened
		"Unable to open fd=", "`- Can't open vma", "Can't open root", "Can't open cwd", "Can't get root fd",
		// compel/src/lib/infect.c: the parasite, after something broke it
		"si_code=",
	} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}
