// Package fork starts a program inside the namespaces of a running process.
//
// Its words: the target is the process whose namespaces are entered; the scout
// is a copy of ourselves that enters them; the child is what the scout leaves
// behind in there and what executes the program.
//
//	pid, err := fork.Into(ctx, fork.Options{
//		Target: initPid,
//		Exe:    sealed,                      // confine.SealedSelf
//		Args:   []string{"crucible-init"},
//		Files:  []*os.File{stdin, stdout, stderr, socket},
//		Cgroup: dir,                         // of v2; nil where there is none
//	})
//	...
//	state, err := process.Wait()                 // os.FindProcess(pid): it is our own child
//
// Go has no way to do this: a user or time namespace cannot be entered by a
// process with several threads, and every Go program has several. runc does it
// in C, before Go's runtime starts. Here it is a fork(2) from Go, after which
// the copy, having one thread and no runtime to speak of, makes system calls
// and nothing else:
//
//	crucible ── clone ─▶ scout ── setns ── clone(CLONE_PARENT) ─▶ child ── execveat
//	    ▲                  │                                        │
//	    └── pid, or error ─┴─────────────── error, or end of file ──┘
//
// The second clone is what enters a pid namespace, and CLONE_PARENT makes the
// child ours, so that wait4 gives its exit status. The scout closes all
// descriptors but those that the program gets before it enters anything, and is
// undumpable before there is a child, so that nobody inside can take host files
// or memory from it (CVE-2016-9962). After the execve a process is dumpable
// again: what is executed should say PR_SET_DUMPABLE at once if it runs with
// more capabilities than the container has. Against a container that has
// CAP_SYS_PTRACE nothing of that helps (__ptrace_may_access in kernel/ptrace.c
// asks for it, and then for nothing else): give the child no more than it needs.
//
// It needs Linux 5.9 (setns with a pidfd, close_range).
//
// What it does not do: cgroups of v1 (the child is born in those of the calling
// thread), limits, system call filters and the program's own capabilities, which
// are the business of what is executed.
package fork
