package preflight

import (
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollTarget is what an epoll descriptor watches.
type pollTarget struct {
	fd  int
	ino uint64
}

// parsePollTarget reads the rest of a line "tfd: 5 events: 19 data: 5 pos:0
// ino:61af sdev:7" in fdinfo (fs/eventpoll.c, ep_show_fdinfo).
func parsePollTarget(s string) (t pollTarget, ok bool) {
	first, _, _ := strings.Cut(s, " ")
	fd, err := strconv.Atoi(first)
	if err != nil {
		return t, false
	}
	_, rest, ok := strings.Cut(s, " ino:")
	if !ok {
		return t, false // before Linux 4.13
	}
	number, _, _ := strings.Cut(rest, " ")
	ino, err := strconv.ParseUint(number, 16, 64)
	return pollTarget{fd: fd, ino: ino}, err == nil
}

// judgePolls finds epoll descriptors that watch a file which the process has
// closed, and somebody else keeps open: CRIU looks for it among the files of
// the first process that has the epoll descriptor (criu/eventpoll.c,
// flush_eventpoll_dinfo_queue).
func (l *look) judgePolls() {
	for _, p := range l.procs {
		if l.stranger[p.pid] {
			continue
		}
		for i := range p.files {
			d := &p.files[i]
			name, _ := anonymous(d.link)
			if name != "[eventpoll]" || d.info == nil {
				continue
			}
			target, missing := p.missingTarget(d)
			if !missing || l.inheritedPoll(p, d) {
				continue
			}
			d.ino = target.ino // one epoll is like another: this tells them apart
			l.add(p, d, Finding{Kind: "epoll", Blocks: true, What: "it watches a file that the process has closed and that is open elsewhere",
				Remedy: "let the program take it out first (EPOLL_CTL_DEL), or close the epoll descriptor where it is not used"})
		}
	}
}

// missingTarget finds something that an epoll watches and the process does not
// have any more.
func (p *process) missingTarget(d *descriptor) (t pollTarget, missing bool) {
	var open map[int]*descriptor
	times := map[int]int{} // a number may have been watched, closed and used again
	for _, m := range d.info.More {
		if m.Key != "tfd" {
			continue
		}
		t, ok := parsePollTarget(m.Value)
		if !ok {
			continue
		}
		if open == nil {
			open = p.open()
		}
		slot := pollSlot{poll: uint32(d.fd), fd: uint32(t.fd), nth: uint32(times[t.fd])}
		times[t.fd]++
		if o := open[t.fd]; o != nil && (o.ino == t.ino || o.ino == 0 || strings.HasPrefix(o.link, "/")) {
			// Of files with a name stat may show another number than the
			// kernel has (on an overlay), and those of an anonymous inode have
			// one in common: they go by descriptor.
			continue
		}
		if !p.holdsTarget(t, slot, open) {
			return t, true
		}
	}
	return pollTarget{}, false
}

func (p *process) open() map[int]*descriptor {
	all := make(map[int]*descriptor, len(p.files))
	for i := range p.files {
		if f := &p.files[i]; f.fd >= 0 {
			all[f.fd] = f
		}
	}
	return all
}

// holdsTarget looks for the target under another number. A pipe's two ends
// have one inode: the kernel must say which one is watched.
func (p *process) holdsTarget(t pollTarget, slot pollSlot, open map[int]*descriptor) bool {
	for _, o := range open {
		if (o.ino == t.ino || o.ino == 0) && slot.leadsTo(p.pid, o.fd) {
			return true
		}
	}
	return false
}

// pollSlot is struct kcmp_epoll_slot: the nth file that a descriptor number
// stood for when it was added to an epoll.
type pollSlot struct{ poll, fd, nth uint32 }

func (s pollSlot) leadsTo(pid, fd int) bool {
	const kcmpEpollTfd = 7
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(pid), kcmpEpollTfd, uintptr(fd), uintptr(unsafe.Pointer(&s)), 0)
	return errno == 0 && order == 0 || errno == unix.ENOSYS || errno == unix.EINVAL
}

// inheritedPoll tells whether a process that CRIU might come to before p holds
// the same epoll: only those below p surely come later.
func (l *look) inheritedPoll(p *process, d *descriptor) bool {
	for _, other := range l.procs {
		if other == p || l.descends(other, p) {
			continue
		}
		for i := range other.files {
			o := &other.files[i]
			if name, _ := anonymous(o.link); name == "[eventpoll]" && sameFile(p.pid, d.fd, other.pid, o.fd) {
				return true
			}
		}
	}
	return false
}

func (l *look) descends(p, from *process) bool {
	for range l.procs {
		if p == nil || p == from {
			return p == from
		}
		p = l.byPid[p.status.PPID]
	}
	return false
}

// sameFile asks whether two descriptors are of one open file (kcmp(2)). Where
// the kernel does not say they may be.
func sameFile(pid1, fd1, pid2, fd2 int) bool {
	const kcmpFile = 0
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid1), uintptr(pid2), kcmpFile, uintptr(fd1), uintptr(fd2), 0)
	return errno != 0 || order == 0
}
