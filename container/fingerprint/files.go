package fingerprint

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// descriptor is an open file of a process.
type descriptor struct {
	fd     int
	target string // of the link in /proc/PID/fd
	stat   unix.Stat_t
	err    error // of stat
}

// object is what several descriptors may lead to.
type object struct {
	kind string // "socket", "pipe", "file"
	dev  uint64
	ino  uint64
}

// holder is a descriptor that leads to an object.
type holder struct {
	p *process
	d *descriptor
}

// descriptors lists the open files of a process, lowest first.
func descriptors(p *process) (all []descriptor, err error) {
	links, err := proc.Root.FDs(p.pid)
	if err != nil {
		return nil, err
	}
	for fd, target := range links {
		d := descriptor{fd: fd, target: target}
		d.err = unix.Stat(p.path("fd/"+strconv.Itoa(fd)), &d.stat)
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b descriptor) int { return a.fd - b.fd })
	return all, nil
}

func (d *descriptor) object() object {
	kind, _, _ := strings.Cut(d.target, ":")
	if strings.HasPrefix(d.target, "/") {
		kind = "file"
	}
	return object{kind, d.stat.Dev, d.stat.Ino}
}

// anonymous: the kernel has one inode for all descriptors of these kinds, so it
// says nothing of who shares what.
func (d *descriptor) anonymous() bool { return strings.HasPrefix(d.target, "anon_inode:") }

// nameObjects gives each thing that is open a name: the process and the
// descriptor, the lowest that lead to it.
func (t *taker) nameObjects() {
	t.names, t.holders = map[object]string{}, map[object]holder{}
	for _, p := range t.processes {
		for i := range p.fds {
			d := &p.fds[i]
			o := d.object()
			if _, known := t.names[o]; known || d.err != nil || d.anonymous() {
				continue
			}
			t.names[o] = fmt.Sprintf("%s/%d:%d", o.kind, p.inside, d.fd)
			t.holders[o] = holder{p, d}
		}
	}
}

// takeDescriptor adds what a descriptor is and what /proc/PID/fdinfo says of it.
func (t *taker) takeDescriptor(p *process, d *descriptor) {
	key := fmt.Sprintf("%s/fd/%d", p.key(), d.fd)
	target := d.target
	if o := d.object(); o.kind != "file" && !d.anonymous() && d.err == nil {
		target = t.names[o]
	}
	t.put(key, target)
	if d.err != nil {
		t.cannot(key+"/stat", d.err)
	} else {
		t.takeStatOf(key, d)
	}
	data, err := os.ReadFile(p.path("fdinfo/" + strconv.Itoa(d.fd)))
	if err != nil {
		t.cannot(key+"/info", err)
		return
	}
	rows, err := parseKeyed(bytes.NewReader(data))
	if err != nil {
		t.cannot(key+"/info", err)
		return
	}
	t.takeInfo(key, rows, d.err == nil && d.stat.Mode&unix.S_IFMT == unix.S_IFCHR && isTerminal(uint64(d.stat.Rdev)))
	t.takeCopied(p, d, key)
}

// takeStatOf adds what stat(2) tells of a file that has a life of its own.
func (t *taker) takeStatOf(key string, d *descriptor) {
	st := &d.stat
	t.put(key+"/mode", fmt.Sprintf("%o", st.Mode))
	t.put(key+"/owner", fmt.Sprintf("%d:%d", st.Uid, st.Gid))
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		t.put(key+"/size", strconv.FormatInt(st.Size, 10))
		t.put(key+"/links", strconv.FormatUint(uint64(st.Nlink), 10))
	case unix.S_IFCHR, unix.S_IFBLK:
		t.put(key+"/device", fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))))
	}
}

// takeCopied adds what can only be asked with a copy of the descriptor, which
// pidfd_getfd(2) makes: nothing is read from it, written to it or set.
func (t *taker) takeCopied(p *process, d *descriptor, key string) {
	wanted := d.err == nil && (strings.HasPrefix(d.target, "socket:") || strings.HasPrefix(d.target, "pipe:") || strings.HasPrefix(d.target, "/"))
	timer := d.target == "anon_inode:[timerfd]"
	if !wanted && !timer {
		return
	}
	fd, err := p.copyOf(d.fd)
	if err != nil {
		t.cannot(key+"/copy", err)
		return
	}
	defer unix.Close(fd)
	if timer {
		t.takeTimerfd(key, fd)
		return
	}
	t.takeSignalOwner(key, fd)
	switch kind := d.stat.Mode & unix.S_IFMT; {
	case kind == unix.S_IFIFO && t.names[d.object()] != "" && t.holders[d.object()].d == d:
		t.takePipe(t.names[d.object()], fd)
	case kind == unix.S_IFSOCK && t.holders[d.object()].d == d:
		t.takeSocketOptions(t.names[d.object()], fd)
	case kind == unix.S_IFCHR && isTerminal(uint64(d.stat.Rdev)):
		t.takeTerminal(key, fd)
	case strings.HasPrefix(d.target, "/memfd:"):
		if seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err == nil {
			t.put(key+"/seals", fmt.Sprintf("%#x", seals))
		}
	}
}

func (p *process) copyOf(fd int) (int, error) {
	if p.pidfd < 0 {
		return -1, unix.ENOSYS
	}
	return unix.PidfdGetfd(p.pidfd, fd, 0)
}

// takeSignalOwner adds who is told by a signal that something came, fcntl(2).
func (t *taker) takeSignalOwner(key string, fd int) {
	o, err := fcntlOwner(fd)
	if err != nil || o.pid == 0 {
		return
	}
	t.put(key+"/signal-owner", fmt.Sprintf("kind %d, %s", o.kind, t.number(int(o.pid))))
	if n, err := unix.FcntlInt(uintptr(fd), unix.F_GETSIG, 0); err == nil {
		t.put(key+"/signal", strconv.Itoa(n))
	}
}

// takePipe adds how much is in a pipe and how much fits.
func (t *taker) takePipe(key string, fd int) {
	if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil {
		t.put(key+"/pending", strconv.Itoa(n))
	} else {
		t.cannot(key+"/pending", err)
	}
	if n, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil {
		t.put(key+"/capacity", strconv.Itoa(n))
	}
}

// isTerminal: major numbers of Documentation/admin-guide/devices.txt.
func isTerminal(rdev uint64) bool {
	major := unix.Major(rdev)
	return major >= 128 && major <= 143 || major == 4 && unix.Minor(rdev) > 0 || major == 5 && unix.Minor(rdev) == 2
}

// takeTerminal adds the settings of a terminal and its window.
func (t *taker) takeTerminal(key string, fd int) {
	if s, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		t.put(key+"/termios", fmt.Sprintf("%x %x %x %x %x", s.Iflag, s.Oflag, s.Cflag, s.Lflag, s.Cc))
	} else {
		t.cannot(key+"/termios", err)
	}
	if w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
		t.put(key+"/window", fmt.Sprintf("%dx%d", w.Col, w.Row))
	}
	if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil {
		t.put(key+"/pending", strconv.Itoa(n))
	}
}

// takeTimerfd tells whether a periodic timer goes on.
func (t *taker) takeTimerfd(key string, fd int) {
	alive := "yes"
	info := func(name string) string { return t.byKey[key+"/"+name].Value }
	if info("ticks") != "0" && info("it_value") == "0" && info("it_interval") != "0" {
		// It expired, and the next period begins when that is read. So it is
		// with every timer that was not restored.
		if t.subject.Restored {
			var left unix.ItimerSpec
			if err := unix.TimerfdGettime(fd, &left); err != nil {
				t.cannot(key+"/goes-on", err)
				return
			}
			if left.Value.Nano() == 0 {
				alive = "no"
			}
		}
	} else if info("it_value") == "0" {
		alive = "no"
	}
	t.put(key+"/goes-on", alive)
}

// takeSharing adds who shares what beyond the numbers: descriptors of one open
// file (dup(2), fork(2)), and processes that share memory or tables (clone(2)).
func (t *taker) takeSharing() {
	for _, share := range []struct {
		name string
		kind int
	}{{"memory", kcmpVM}, {"descriptors", kcmpFiles}, {"directories", kcmpFS}, {"signal-handlers", kcmpSighand}, {"semaphore-undo", kcmpSysVSem}, {"io-context", kcmpIO}} {
		for i, p := range t.processes {
			if p.zombie {
				continue
			}
			for _, lower := range t.processes[:i] {
				if !lower.zombie && kcmp(p.pid, lower.pid, share.kind, 0, 0) == 0 {
					t.put(p.key()+"/shares/"+share.name, "with process "+strconv.Itoa(lower.inside))
					break
				}
			}
		}
	}
	t.takeOpenFiles()
}

// takeOpenFiles names for each descriptor the lowest one of the same open file,
// unless that is itself.
func (t *taker) takeOpenFiles() {
	groups := map[string][]holder{}
	for _, p := range t.processes {
		for i := range p.fds {
			d := &p.fds[i]
			if d.err != nil {
				continue
			}
			// Only what looks the same can be the same.
			at := fmt.Sprintf("%s %d %d", d.target, d.stat.Dev, d.stat.Ino)
			groups[at] = append(groups[at], holder{p, d})
		}
	}
	for _, group := range groups {
		// In the kernel's own order of them, those of one open file are together.
		slices.SortStableFunc(group, func(a, b holder) int { return order(kcmp(a.p.pid, b.p.pid, kcmpFile, a.d.fd, b.d.fd)) })
		for i, first := 1, 0; i < len(group); i++ {
			h, o := group[i], group[first]
			if kcmp(h.p.pid, o.p.pid, kcmpFile, h.d.fd, o.d.fd) != 0 {
				first = i
				continue
			}
			t.put(fmt.Sprintf("%s/fd/%d/same-open-file", h.p.key(), h.d.fd), fmt.Sprintf("process/%d/fd/%d", o.p.inside, o.d.fd))
		}
	}
}

// order turns the answer of kcmp(2) into that of cmp.Compare.
func order(answer int) int {
	switch answer {
	case 1:
		return -1
	case 2:
		return 1
	}
	return 0
}

// The kinds of kcmp(2), include/uapi/linux/kcmp.h.
const (
	kcmpFile = iota
	kcmpVM
	kcmpFiles
	kcmpFS
	kcmpSighand
	kcmpIO
	kcmpSysVSem
)

// kcmp is 0 if the two are one, -1 if that cannot be told.
func kcmp(a, b, kind, one, two int) int {
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), uintptr(kind), uintptr(one), uintptr(two), 0)
	if errno != 0 {
		return -1
	}
	return int(r)
}
