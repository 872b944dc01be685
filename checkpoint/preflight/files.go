package preflight

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

// judgeFiles judges what a process holds open: descriptors, its program, its
// directories, and mapped files.
func (l *look) judgeFiles(p *process) {
	for i := range p.files {
		d := &p.files[i]
		name, anonymous := anonymous(d.link)
		switch {
		case d.role == "map" && d.link == "[uprobes]":
			l.add(p, d, Finding{Kind: "uprobes", Blocks: true, What: "somebody traces it with uprobes", Remedy: "end the tracing, or --criu-option allow-uprobes"})
		case anonymous:
			l.judgeAnonymous(p, d, name)
		case d.role == "map" && d.link[0] != '/':
			// A packet socket's ring, which CRIU maps again, or XDP's, whose
			// descriptor is judged.
		default:
			l.judgeNamed(p, d)
		}
	}
}

// judgeNamed judges what is no anonymous inode: sockets, pipes, namespaces,
// and files with a path.
func (l *look) judgeNamed(p *process, d *descriptor) {
	switch kind, _ := pseudo(d.link); {
	case kind == "socket" && d.role == "":
		l.noteSocket(p, d)
	case kind == "pipe":
		l.judgePipe(p, d)
	case kind != "" && d.kind() == unix.S_IFREG:
		l.judgeNamespaceFile(p, d)
	default:
		l.judgePath(p, d)
	}
}

func (l *look) judgeAnonymous(p *process, d *descriptor, name string) {
	if d.role == "map" {
		// criu/proc_parse.c, vma_get_mapfile: only files can be mapped again.
		if name == "[io_uring]" || name == "[perf_event]" {
			f, _ := anonymousKind(name)
			l.add(p, d, f)
			return
		}
		l.add(p, d, Finding{Kind: "mapping", Blocks: true, What: fmt.Sprintf("CRIU cannot save memory of %s", name), Remedy: "let the program unmap it first"})
		return
	}
	if f, none := anonymousKind(name); !none {
		l.add(p, d, f)
		return
	}
	if d.info == nil {
		return
	}
	if name == "[pidfd]" {
		l.judgePidfd(p, d)
	}
}

// judgePidfd follows criu/pidfd.c, dump_one_pidfd.
func (l *look) judgePidfd(p *process, d *descriptor) {
	f := Finding{Kind: "pidfd", Blocks: true, Remedy: closeFirst}
	pid, err := strconv.Atoi(detail(d.info, "Pid"))
	switch {
	case d.info.Flags&unix.PIDFD_THREAD != 0:
		f.What = "CRIU cannot save a pidfd of a thread"
	case err == nil && pid >= 0 && l.isOutside(pid):
		f.What = "CRIU cannot save a pidfd of a process outside of the container"
	default:
		return
	}
	d.ino = uint64(pid) // one pidfd is like another: this tells them apart
	l.add(p, d, f)
}

func detail(info *proc.FDInfo, key string) string {
	for _, m := range info.More {
		if m.Key == key {
			return m.Value
		}
	}
	return ""
}

func (l *look) judgePipe(p *process, d *descriptor) {
	if d.info != nil && d.info.Flags&unix.O_DIRECT != 0 { // criu/pipes.c
		l.add(p, d, Finding{Kind: "pipe-packets", Blocks: true, What: "CRIU cannot save a pipe in packet mode (O_DIRECT)", Remedy: closeFirst})
	}
}

// judgeNamespaceFile: CRIU opens it again by way of a process that is in it
// (criu/namespaces.c, dump_one_ns_file).
func (l *look) judgeNamespaceFile(p *process, d *descriptor) {
	for _, other := range l.procs {
		for _, ino := range other.spaces {
			if ino == d.ino {
				return
			}
		}
	}
	l.add(p, d, Finding{Kind: "namespace-descriptor", Blocks: true, What: "no process of the container is in the namespace that the descriptor leads to", Remedy: closeFirst})
}

// judgePath judges what has a path.
func (l *look) judgePath(p *process, d *descriptor) {
	kind := d.kind()
	switch kind {
	case unix.S_IFCHR:
		if l.judgeDevice(p, d) {
			return
		}
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO:
		if d.role == "map" && kind != unix.S_IFREG {
			l.add(p, d, Finding{Kind: "mapping", Blocks: true, What: "CRIU cannot save this kind of mapped file", Remedy: "let the program unmap it first"})
			return
		}
	default: // a block device, a socket opened by its name (O_PATH), what drivers make up
		if d.role == "map" && strings.HasPrefix(d.link, "/[aio]") {
			return
		}
		l.add(p, d, Finding{Kind: "descriptor", Blocks: true, What: "CRIU cannot save this kind of descriptor", Remedy: closeFirst})
		return
	}
	if !l.mounts.has(d.mount) {
		l.judgeStray(p, d)
		return
	}
	if l.mounts.isCovered(d.mount) {
		l.add(p, d, Finding{Kind: "file-overmounted", Blocks: true, What: "something was mounted over the open file", Remedy: "unmount it, or close the file first"})
		return
	}
	if kind == unix.S_IFREG {
		l.judgeDeleted(p, d)
		l.judgeLocks(p, d)
	}
}

// judgeDevice tells whether there is nothing more to say of a device.
func (l *look) judgeDevice(p *process, d *descriptor) bool {
	if d.role == "map" {
		// criu/proc_parse.c, handle_vma: /dev/zero is as good as no file.
		if d.rdev != unix.Mkdev(memMajor, 5) {
			l.add(p, d, Finding{Kind: "mapping", Blocks: true, What: "CRIU cannot save mapped device memory", Remedy: "let the program unmap it first"})
		}
		return true
	}
	f, none := deviceKind(d.rdev)
	if !none {
		l.add(p, d, f)
		return true
	}
	if isTerminal(d.rdev) && !l.mounts.has(d.mount) {
		// criu/files-reg.c, dump_one_reg_file: skip_for_shell_job.
		l.shellJob(p, d, "the terminal is one of outside")
		return true
	}
	return false
}

// judgeStray judges a file whose mount is not the container's. The kernel has
// mounts of its own for what is no file to anybody else.
func (l *look) judgeStray(p *process, d *descriptor) {
	if d.dev == l.shmem() || strings.HasPrefix(d.link, "/memfd:") || strings.HasPrefix(d.link, "/anon_hugepage") {
		if d.role == "map" && strings.HasPrefix(d.link, "/SYSV") && l.sharesIPC() {
			l.add(p, d, Finding{Kind: "sysv-shm", Blocks: true, What: "SysV shared memory cannot be saved without an IPC namespace", Remedy: "give the container an IPC namespace"})
		}
		return
	}
	f := strayKind(l.fileSystem(p, d))
	l.add(p, d, f)
}

// fileSystem asks for the kind of file system that a file is on.
func (l *look) fileSystem(p *process, d *descriptor) int64 {
	name := d.role
	switch {
	case d.role == "map":
		name = "map_files/" + d.where
	case d.role == "":
		name = "fd/" + strconv.Itoa(d.fd)
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/proc/"+strconv.Itoa(p.pid)+"/"+name, &st); err != nil {
		return 0
	}
	return int64(st.Type)
}

func (l *look) sharesIPC() bool {
	dir, err := openProcess(unix.Getpid())
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	own, err := l.r.space(dir, "ns/ipc")
	return err == nil && own == l.init.spaces[spaceIPC]
}

// defaultGhostLimit is what CRIU saves of a deleted file without being told
// (criu/include/cr_options.h, DEFAULT_GHOST_LIMIT).
const defaultGhostLimit = 1 << 20

// judgeDeleted finds deleted files (criu/files-reg.c, check_path_remap).
func (l *look) judgeDeleted(p *process, d *descriptor) {
	if !d.deleted() {
		return
	}
	if d.nlink > 0 {
		// A living file may be called that. And a file that an overlay shows
		// from below keeps its link count when it is deleted above: CRIU first
		// tries to link it back, then takes it for a file without a name.
		if l.stillThere(d) {
			return
		}
		if !l.s.Given.LinkRemap {
			l.add(p, d, Finding{Kind: "link-remap", What: "the file was deleted and has another name still: it is linked back meanwhile"})
		}
		if !l.mounts.onOverlay(d.mount) {
			return
		}
	}
	l.judgeGhost(p, d)
}

func (l *look) stillThere(d *descriptor) bool {
	i, err := l.statIn(d.link)
	return err == nil && i.ino == d.ino && i.dev == d.dev
}

// judgeGhost sees to it that a deleted file's contents may go into the image.
func (l *look) judgeGhost(p *process, d *descriptor) {
	size := d.blocks * 512 // as CRIU counts, dump_ghost_remap
	limit := uint64(max(l.s.Given.GhostLimit, defaultGhostLimit))
	switch {
	case size > math.MaxUint32:
		l.add(p, d, Finding{Kind: "ghost-limit", Blocks: true, What: fmt.Sprintf("the file was deleted and is open still, and its %d bytes are more than CRIU saves of one", size),
			Remedy: closeFirst})
	case size > limit && l.s.Given.GhostLimit != 0:
		l.add(p, d, Finding{Kind: "ghost-limit", Blocks: true, What: fmt.Sprintf("the file was deleted and is open still, and its %d bytes are more than --ghost-limit allows", size),
			Remedy: fmt.Sprintf("allow more, or leave --ghost-limit out, or %s", closeFirst)})
	case size > limit:
		l.add(p, d, Finding{Kind: "ghost-limit", What: fmt.Sprintf("the file was deleted and is open still: its %d bytes go into the image", size)})
	}
	if l.s.Given.GhostLimit == 0 && size > defaultGhostLimit/2 {
		l.needs.GhostLimit = max(l.needs.GhostLimit, roomFor(size))
	}
}

// roomFor is a limit that a file of this size, which may be growing, will not
// have reached when it is dumped.
func roomFor(size uint64) uint32 {
	return uint32(min(uint64(1)<<(bits.Len64(size)+1), math.MaxUint32))
}

func (l *look) judgeLocks(p *process, d *descriptor) {
	if d.info != nil && detail(d.info, "lock") != "" && !l.s.Given.FileLocks {
		l.add(p, d, Finding{Kind: "file-locks", What: "the file is locked: nobody else may have locked it when the container is restored"})
	}
}
