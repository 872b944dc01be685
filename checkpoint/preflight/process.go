package preflight

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// process is what was read of one. Nothing is judged here.
type process struct {
	pid     int
	status  proc.Status
	spaces  [len(spaceNames)]uint64 // namespaces, 0 where the kernel has none
	files   []descriptor
	threads []proc.Status // but the first
}

func (p *process) ended() bool { return p.status.State == "Z" || p.status.State == "X" }

// spaceNames are the links in /proc/PID/ns that CRIU compares
// (criu/namespaces.c, dump_task_ns_ids).
var spaceNames = [...]string{"mnt", "net", "pid", "user", "ipc", "uts", "cgroup", "time", "time_for_children"}

const (
	spaceMnt          = 0
	spaceIPC          = 4
	spaceTime         = len(spaceNames) - 2
	spaceTimeChildren = len(spaceNames) - 1
)

// descriptor is an open file, or another file that a process holds.
type descriptor struct {
	inode
	fd    int
	role  string // of one without a number: "exe", "cwd", "root", or "map"
	where string // for a map: its addresses
	link  string
	proto string // of a socket
	info  *proc.FDInfo
}

func (d descriptor) deleted() bool { return strings.HasSuffix(d.link, deletedSuffix) }

const deletedSuffix = " (deleted)"

// readProcess reads a process. It returns nil without an error when there is
// no such process any more.
func (r *reader) readProcess(pid int, shared *shared) (*process, error) {
	dir, err := openProcess(pid)
	if err == nil {
		defer unix.Close(dir)
		p := &process{pid: pid}
		if err = r.readInto(p, dir, shared); err == nil {
			return p, nil
		}
		if errors.Is(err, unix.EACCES) {
			// What the links of a process say when it has ended (fs/proc/base.c,
			// proc_pid_readlink; fs/proc/namespaces.c), and then the files say
			// ESRCH.
			if _, e := r.read(dir, "stat"); e != nil {
				err = e
			}
		}
	}
	if gone(err) {
		return nil, nil
	}
	return nil, err
}

func (r *reader) readInto(p *process, dir int, shared *shared) (err error) {
	if p.status, err = r.status(dir, "status"); err != nil {
		return err
	}
	if p.ended() {
		return r.readThreads(p, dir) // there is nothing else
	}
	for i, name := range spaceNames {
		if p.spaces[i], err = r.space(dir, "ns/"+name); err != nil {
			return err
		}
	}
	if err := r.readThreads(p, dir); err != nil {
		return err
	}
	if err := r.readFiles(p, dir, shared); err != nil {
		return err
	}
	return r.readMaps(p, dir, shared)
}

func (r *reader) space(dir int, name string) (uint64, error) {
	link, err := r.link(dir, name)
	if gone(err) {
		return 0, nil // a kernel without it; an ended process shows elsewhere
	}
	if err != nil {
		return 0, err
	}
	ns, err := proc.ParseNamespace(link)
	return ns.Inode, err
}

func (r *reader) readThreads(p *process, dir int) error {
	if p.status.Threads < 2 {
		return nil
	}
	task, err := openDir(dir, "task")
	if err != nil {
		return err
	}
	defer unix.Close(task)
	tids, err := r.numbers(task)
	if err != nil {
		return err
	}
	for _, tid := range tids {
		if tid == p.pid {
			continue
		}
		s, err := r.status(task, strconv.Itoa(tid)+"/status")
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		p.threads = append(p.threads, s)
	}
	return nil
}

// readFiles reads the descriptors, and what else a process holds open
// (criu/cr-dump.c, dump_task_exe_link and dump_task_fs).
func (r *reader) readFiles(p *process, dir int, shared *shared) error {
	at, err := openDir(dir, "fd")
	if err != nil {
		return err
	}
	defer unix.Close(at)
	fds, err := r.numbers(at)
	if err != nil {
		return err
	}
	p.files = make([]descriptor, 0, len(fds)+3)
	for _, fd := range fds {
		d := descriptor{fd: fd}
		if err := r.readDescriptor(p, dir, at, &d, shared); err != nil {
			if gone(err) {
				continue
			}
			return err
		}
		p.files = append(p.files, d)
	}
	for _, role := range [...]string{"exe", "cwd", "root"} {
		d := descriptor{fd: -1, role: role}
		if d.inode, err = r.stat(dir, role); err == nil {
			d.link, err = r.link(dir, role)
		}
		if gone(err) {
			continue // a process that is ending has none
		}
		if err != nil {
			return err
		}
		p.files = append(p.files, d)
	}
	return nil
}

// readDescriptor asks first for the link: of what has no path it tells all.
func (r *reader) readDescriptor(p *process, dir, at int, d *descriptor, shared *shared) (err error) {
	name := strconv.Itoa(d.fd)
	if d.link, err = r.link(at, name); err != nil {
		return err
	}
	switch kind, ino := pseudo(d.link); kind {
	case "socket":
		d.mode, d.ino = unix.S_IFSOCK, ino
		return r.readProtocol(p.pid, at, d)
	case "pipe":
		d.mode, d.ino = unix.S_IFIFO, ino
		return r.readPipe(dir, d)
	}
	if name, yes := anonymous(d.link); yes {
		if saysMore(name) {
			return r.readInfo(dir, d)
		}
		return nil
	}
	if d.inode, err = r.stat(at, name); err != nil {
		return err
	}
	if d.mount == 0 || d.kind() == unix.S_IFREG && shared.mayAskForLocks() {
		return r.readInfo(dir, d)
	}
	return nil
}

func (r *reader) readProtocol(pid, at int, d *descriptor) (err error) {
	if d.proto = r.protos[d.ino]; d.proto != "" {
		return nil
	}
	if d.proto, err = r.protocol(pid, d.fd); err == nil {
		r.protos[d.ino] = d.proto
		return nil
	}
	if link, e := r.link(at, strconv.Itoa(d.fd)); e == nil && link == d.link {
		return nil // a kernel that does not say
	}
	return unix.ENOENT // the number is another file's by now
}

// pseudo takes the link of a file without a path apart: "socket:[1234]".
func pseudo(link string) (kind string, ino uint64) {
	kind, rest, ok := strings.Cut(link, ":[")
	number, closed := strings.CutSuffix(rest, "]")
	ino, err := strconv.ParseUint(number, 10, 64)
	if !ok || !closed || err != nil || strings.Contains(kind, "/") {
		return "", 0
	}
	return kind, ino
}

// readPipe asks until it has seen a pipe's end for writing, which is the one
// that shows O_DIRECT (fs/pipe.c, create_pipe_files).
func (r *reader) readPipe(dir int, d *descriptor) error {
	if r.seen[d.ino] {
		return nil
	}
	err := r.readInfo(dir, d)
	r.seen[d.ino] = err == nil && d.info.Flags&unix.O_ACCMODE != unix.O_RDONLY
	return err
}

// saysMore tells whether fdinfo says something of this kind of descriptor that
// is judged.
func saysMore(anonymous string) bool {
	switch anonymous {
	case "[inotify]", "inotify", "[fanotify]", "[eventpoll]", "[pidfd]", "[timerfd]":
		return true
	}
	return false
}

func (r *reader) readInfo(dir int, d *descriptor) error {
	data, err := r.readOnce(dir, "fdinfo/"+strconv.Itoa(d.fd))
	if err != nil {
		return err
	}
	if d.mount != 0 && !bytes.Contains(data, []byte("\nlock:")) {
		return nil // as of most files: nothing to take apart
	}
	info, err := proc.ParseFDInfo(bytes.NewReader(data))
	if err != nil {
		return err
	}
	d.info = &info
	if d.mount == 0 {
		d.mount = info.MntID
	}
	return nil
}

// anonymous is the name of an anonymous inode's kind: "[eventfd]", "bpf-map".
func anonymous(link string) (string, bool) {
	if strings.HasPrefix(link, "pidfd:[") { // pidfs, on some kernels
		return "[pidfd]", true
	}
	return strings.CutPrefix(link, "anon_inode:")
}
