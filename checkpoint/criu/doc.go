// Package criu is the one place that talks to CRIU: it finds it, starts it,
// asks it, listens to it, and makes errors of its log.
//
// # Words
//
// CRIU is a program that was found. A Process is one running `criu swrk`,
// which serves one request over a socket that only the two of them have. An
// Event is a point in a request at which CRIU waits for the caller's yes or
// no (CRIU calls them scripts or notifications). The cause is the line of
// CRIU's log to which a failure goes back; its kind is a stable name for a
// cause that is known, with a remedy.
//
// # Example
//
//	c, err := criu.Find("")
//	p, err := c.Start(ctx, criu.StartOptions{NetNS: netns})
//	defer p.Close()
//	o := criu.DumpOptions{Common: criu.Common{Images: dir}, Pid: pid, FreezeCgroup: group}
//	res, err := p.Dump(ctx, o, func(e criu.Event) error {
//		if e.Script == criu.PreDump {
//			return freeze()
//		}
//		return nil
//	})
//
// A CRIU takes 1 to 2 ms to be ready after Start has returned. Who starts it
// first, and then does what else must be done, has it ready by then.
//
// # The order of events
//
// As criu/cr-dump.c and criu/cr-restore.c of 4.2.1 have it, and as the tests
// check it. Those in brackets come only if CRIU is outside of the tree's
// network namespace (criu/net.c: network_lock).
//
//	dump      pre-dump            nothing is stopped yet, no image is written
//	          [network-lock]      the tasks are seized by ptrace(2)
//	          query-ext-files     the same
//	          post-dump           all images are written, the tasks still held;
//	                              a no lets them go on
//	          [network-unlock]    if they are left running, or something failed
//	restore   pre-restore         nothing is made yet
//	          setup-namespaces    with the pid; the root task alone, in its
//	                              namespaces but for its mounts: the place to
//	                              put it into cgroups. Not without namespaces
//	          post-setup-namespaces   its mounts are made. Not without namespaces
//	          orphan-pts-master   with a file; if OrphanPTSMaster is set
//	          post-restore        with the pid; all is made but for the last
//	                              step: the last event at which a no counts
//	          [network-unlock]
//	          pre-resume          the tasks stand at their last instruction
//	                              before they run
//	          post-resume         they run
//
// PreDump has no events at all.
//
// pre-dump comes before CRIU looks at the freezer (criu/seize.c), so a caller
// can let CRIU get ready, and freeze then. CRIU needs some 0.6 ms from there
// until it has seized the tasks.
//
// # The freezer
//
// A group given as FreezeCgroup that is frozen already saves CRIU's polling
// in steps of 100 ms. CRIU then seizes every task, thaws the group, and has
// the tasks held by ptrace(2) only; at post-dump the group reads as thawed.
// When it lets them go, be it that they are left running or that something
// failed, it freezes the group again first (criu/seize.c:
// freezer_restore_state): the caller thaws. When it kills them it does not.
//
// # Killing CRIU
//
// During a dump, CRIU makes each task execute code of CRIU's (the parasite,
// compel/src/lib/infect.c). A parasite whose socket closes puts the task's
// registers and signal mask back and lets it go on
// (compel/plugins/std/infect.c: parasite_daemon), though its memory stays
// mapped. But before it listens, and after it was told to leave, CRIU makes
// the task do single system calls by writing over its registers and its code
// (compel_execute_syscall), and a CRIU that is killed then puts nothing back.
// Killed at 297 random points of a dump of three processes with some five
// threads each (TestKillDuringDump), CRIU took a task with it 33 times, left
// a parasite's memory behind 149 times, and left the group frozen 13 times. A TCP
// socket that it was saving stays in repair mode, and its nftables lock in
// force: container.ReleaseConnections ends both.
//
// So nothing here kills CRIU during a dump by itself: a cancelled context
// is a no at the next event, upon which CRIU undoes everything, and the end
// is waited for. There is no event while it writes memory, so that can take
// as long as the dump would have. Process.Kill is for who would rather lose
// the tasks.
//
// A restore that is cancelled is given two seconds to undo what it did, and
// then is killed with every task it has made: CRIU's process group, and the
// tree below the restored root task. Nothing is lost by that but the mount
// points that CRIU had made in /tmp. A time limit is worth having: 4.2.1
// reads a page image that was cut short for ever (TestRestoreSpins).
//
// # If the caller dies
//
// CRIU gets no signal then. It finds nobody to ask at its next event, gives
// up and undoes everything (it ignores SIGPIPE, criu/crtools.c), which a
// PR_SET_PDEATHSIG would spoil. It also freezes the group again, as above:
// whoever thaws it in the dead caller's place must do so after CRIU has
// ended, or the tasks stay frozen for good. A descriptor in
// StartOptions.Hold tells when: its other end reads end-of-file when the
// caller and CRIU are both gone.
//
// # Why not go-criu's client
//
// Its generated messages are used. The client itself (v6.3.0) starts CRIU in
// the caller's network namespace and environment, takes no context, reads
// answers of at most 8 KiB, and receives no descriptor, which an
// orphan-pts-master needs; it knows nine events, and does not tell about others.
//
// # What it does not do
//
// It freezes nothing, mounts nothing and makes no namespace. It does not read
// images (images/inspect does). It reads no configuration file of CRIU's, so
// that a request means the same on every host; what has no field in the
// options goes through Common.Extra.
package criu
