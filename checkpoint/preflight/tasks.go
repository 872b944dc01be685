package preflight

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// judgeProcesses judges what is not about files.
func (l *look) judgeProcesses() {
	limits := l.limitsAreReadable()
	usual := l.usualCPUs()
	for _, p := range l.procs {
		if l.stranger[p.pid] {
			continue
		}
		l.judgeSession(p)
		if p.ended() {
			l.judgeLeaderless(p)
			continue
		}
		l.judgeTracer(p)
		l.judgeSpaces(p)
		l.judgeCPUs(p, usual)
		if !limits(p.status) {
			l.add(p, nil, Finding{Kind: "rlimit", Blocks: true,
				What:   fmt.Sprintf("it runs as uid %d, gid %d, and without CAP_SYS_RESOURCE CRIU cannot read its limits", p.status.UIDs[1], p.status.GIDs[1]),
				Remedy: "give the container a user namespace (`crucible run --userns auto`)"})
		}
		l.judgeWait(p)
	}
	l.judgeNested()
}

// judgeNested finds who comes back in another cgroup: a restore makes nested
// groups and their limits again, and all tasks in the container's own.
func (l *look) judgeNested() {
	groups := map[string][]*process{}
	for _, p := range l.procs {
		if group := l.s.Nested[p.pid]; group != "" && !l.stranger[p.pid] {
			groups[group] = append(groups[group], p)
		}
	}
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		in := groups[group]
		slices.SortFunc(in, func(a, b *process) int { return a.pid - b.pid })
		who := "it is in the nested cgroup " + group + ", and comes"
		if len(in) > 1 {
			who = "pids"
			for _, p := range in {
				who += " " + strconv.Itoa(p.pid)
			}
			who += " are in the nested cgroup " + group + ", and come"
		}
		l.add(in[0], nil, Finding{Kind: "cgroup-nested", Lost: true, What: who + " back in the container's own",
			Remedy: "the program has to move itself again"})
	}
}

// judgeLeaderless finds threads that live on without their leader
// (criu/seize.c, collect_threads). A process that is just ending shows the
// same for a moment.
func (l *look) judgeLeaderless(p *process) {
	if slices.ContainsFunc(p.threads, func(s proc.Status) bool { return s.State != "Z" && s.State != "X" }) {
		l.add(p, nil, Finding{Kind: "zombie-threads", Blocks: true, What: "its main thread has ended and others live on, which CRIU cannot save",
			Remedy: "let the whole process end"})
	}
}

// judgeRoot wants the container's first process in the root of its mount
// namespace (criu/mount.c, mntns_set_root_fd): only there it is seen which
// mounts and files there are.
func (l *look) judgeRoot() (ok bool) {
	for _, d := range l.init.files {
		if d.role == "root" && d.link != "/" {
			l.add(l.init, nil, Finding{Kind: "mount-task-root", Blocks: true, Path: d.link, What: "the container's first process has changed its root (chroot)",
				Remedy: "let a child of it do that"})
			return false
		}
	}
	return true
}

// judgeWait finds what may not freeze. A task in a frozen group of cgroup v1
// shows the same state.
func (l *look) judgeWait(p *process) {
	if p.status.State != "D" || l.s.Frozen {
		return
	}
	in := proc.Root.WaitChannel(p.pid)
	if in == "__refrigerator" {
		return
	}
	l.add(p, nil, Finding{Kind: "uninterruptible", What: strings.TrimSpace("it cannot be interrupted in the kernel's " + in),
		Remedy: "if that lasts, the container will not freeze: see what it waits for"})
}

// judgeStrangers finds those who were put into the cgroup. Only the topmost is
// spoken of: those below it end with it.
func (l *look) judgeStrangers() {
	for _, p := range l.procs {
		if !l.isStranger(p) {
			continue
		}
		l.stranger[p.pid] = true
		if l.byPid[p.status.PPID] == nil {
			l.add(p, nil, Finding{Kind: "task-outside", Blocks: true, What: "the process was put into the container from outside",
				Remedy: "wait for it (an exec session?), or end it"})
		}
	}
}

// isStranger tells whether a process does not descend from the first one: CRIU
// does not see it, and it would stay behind.
func (l *look) isStranger(p *process) bool {
	for range l.procs { // no more steps up than there are processes
		if p.pid == l.s.Init {
			return false
		}
		parent := l.byPid[p.status.PPID]
		if parent == nil {
			// A parent that has ended since it was listed: its child is about
			// to be the first process's.
			return !slices.Contains(l.s.Pids, p.status.PPID)
		}
		p = parent
	}
	return false
}

// isOutside tells whether a process that may have been born just now, or be
// gone again, does not belong to the container.
func (l *look) isOutside(pid int) bool {
	for range maxDepth {
		if p := l.byPid[pid]; p != nil {
			return l.stranger[pid]
		}
		if pid <= 1 {
			return true
		}
		dir, err := openProcess(pid)
		if err != nil {
			return false
		}
		s, err := l.r.status(dir, "status")
		unix.Close(dir)
		if err != nil {
			return false
		}
		pid = s.PPID
	}
	return true
}

// maxDepth ends a climb that pids used again could send around in circles.
const maxDepth = 1000

// judgeSession finds sessions that began outside (criu/pstree.c, dump_pstree;
// criu/cr-dump.c, dump_one_task).
func (l *look) judgeSession(p *process) {
	level := len(l.init.status.NSPID) - 1 // the container's pid namespace
	if level < 0 || level >= len(p.status.NSSID) {
		return
	}
	switch own := p.status.NSSID[level]; {
	case own == 0:
		l.add(p, nil, Finding{Kind: "session-outside", Blocks: true, What: "its session was begun by a process outside of the container's pid namespace",
			Remedy: "start it in a session of its own (setsid)"})
	case p == l.init && own != p.status.NSPID[level]:
		l.shellJob(p, nil, "the container's first process belongs to a session of outside")
	}
}

func (l *look) shellJob(p *process, d *descriptor, what string) {
	if l.s.Given.ShellJob {
		return
	}
	l.needs.ShellJob = true
	l.add(p, d, Finding{Kind: "shell-job", What: what + ": the restore will need one in its place"})
}

func (l *look) judgeTracer(p *process) {
	for _, s := range append([]proc.Status{p.status}, p.threads...) {
		if s.Tracer == 0 {
			continue
		}
		l.add(p, nil, Finding{Kind: "traced", Blocks: true, What: fmt.Sprintf("a debugger or tracer (pid %d) holds it", s.Tracer), Remedy: "let it go first"})
		return
	}
}

// judgeSpaces finds nested namespaces. CRIU saves nested mount namespaces, and
// refuses the others (criu/namespaces.c, generate_ns_id) but for network
// namespaces: those it saves, and does not restore when the container's own is
// not part of the image (criu/pstree.c, get_clone_mask), as it is here.
func (l *look) judgeSpaces(p *process) {
	what := ""
	for i, name := range spaceNames[:spaceTimeChildren] {
		if i != spaceMnt && p.spaces[i] != 0 && p.spaces[i] != l.init.spaces[i] {
			what = fmt.Sprintf("its %s namespace is not the container's", name)
			break
		}
	}
	if what == "" && p.spaces[spaceTime] != p.spaces[spaceTimeChildren] {
		what = "its children will be in a time namespace of their own"
	}
	if what != "" {
		l.add(p, nil, Finding{Kind: "namespace-nested", Blocks: true, What: what + ", and CRIU cannot save a container inside of a container",
			Remedy: "end the inner one first"})
	}
}

// limitsAreReadable returns whether prlimit(2) works on a process
// (kernel/sys.c, check_prlimit_permission).
func (l *look) limitsAreReadable() func(proc.Status) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&header, &sets[0])
	if l.s.UserNS || err != nil || sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return func(proc.Status) bool { return true }
	}
	uid, gid := uint32(unix.Getuid()), uint32(unix.Getgid())
	return func(s proc.Status) bool {
		for i := range 3 { // real, effective, saved
			if s.UIDs[i] != uid || s.GIDs[i] != gid {
				return false
			}
		}
		return true
	}
}

// usualCPUs are the processors of a process that nobody has tied to any. The
// first process may have tied itself: then its parent's are taken, unless a
// cpuset makes the difference.
func (l *look) usualCPUs() string {
	own, cpuset, err := l.cpus(l.s.Init)
	if err != nil {
		return l.init.status.CPUs
	}
	if parents, theirs, err := l.cpus(l.init.status.PPID); err == nil && theirs == cpuset {
		return parents
	}
	return own
}

func (l *look) cpus(pid int) (allowed, cpuset string, err error) {
	dir, err := openProcess(pid)
	if err != nil {
		return "", "", err
	}
	defer unix.Close(dir)
	path, err := l.r.read(dir, "cpuset")
	if err != nil {
		return "", "", err
	}
	cpuset = string(path)
	if p := l.byPid[pid]; p != nil {
		return p.status.CPUs, cpuset, nil
	}
	s, err := l.r.status(dir, "status")
	return s.CPUs, cpuset, err
}

func (l *look) judgeCPUs(p *process, usual string) {
	for _, s := range append([]proc.Status{p.status}, p.threads...) {
		if s.CPUs == usual {
			continue
		}
		l.add(p, nil, Finding{Kind: "affinity", Lost: true, What: fmt.Sprintf("it is tied to the processors %s, and CRIU does not save that", strings.TrimSpace(s.CPUs)),
			Remedy: "tie it again after the restore (taskset)"})
		return
	}
}
