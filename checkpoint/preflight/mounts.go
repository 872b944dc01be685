package preflight

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountTable is what the mount namespaces of a container show.
type mountTable struct {
	byID    map[int]*mountPoint
	list    []*mountPoint
	covered map[int]bool // answers of isCovered
}

type mountPoint struct {
	*mountinfo.Info
	external bool
	root     bool // of the container's own mount namespace
	nested   bool // in another mount namespace
	shared   string
	master   string
}

func parseMountInfo(r io.Reader) ([]*mountinfo.Info, error) {
	return mountinfo.GetMountsFromReader(r, nil)
}

func newMountTable(own []*mountinfo.Info, external []string) *mountTable {
	t := &mountTable{byID: map[int]*mountPoint{}, covered: map[int]bool{}}
	for _, i := range own {
		m := t.add(i)
		m.root = i.Mountpoint == "/"
		m.external = !m.root && slices.Contains(external, i.Mountpoint)
	}
	return t
}

// addNested adds the mounts of another mount namespace of the container. CRIU
// knows external mounts by their place in the first one only, and the others
// as binds of them (criu/mount.c, try_resolve_ext_mount).
func (t *mountTable) addNested(infos []*mountinfo.Info) {
	for _, i := range infos {
		if t.byID[i.ID] == nil {
			t.add(i).nested = true
		}
	}
}

func (t *mountTable) add(i *mountinfo.Info) *mountPoint {
	m := &mountPoint{Info: i}
	for word := range strings.FieldsSeq(i.Optional) {
		if id, ok := strings.CutPrefix(word, "shared:"); ok {
			m.shared = id
		}
		if id, ok := strings.CutPrefix(word, "master:"); ok {
			m.master = id
		}
	}
	t.byID[i.ID] = m
	t.list = append(t.list, m)
	return m
}

// has tells whether a file's mount belongs to the container. The kernel may
// not have said which one it is.
func (t *mountTable) has(id int) bool { return id == 0 || t.byID[id] != nil }

// onOverlay tells whether a file is on an overlay.
func (t *mountTable) onOverlay(id int) bool {
	m := t.byID[id]
	return m != nil && m.FSType == "overlay"
}

// isCovered tells whether something is mounted over a mount, as CRIU sees it
// (criu/mount.c, mnt_is_overmounted).
func (t *mountTable) isCovered(id int) bool {
	m := t.byID[id]
	if m == nil {
		return false
	}
	if answer, known := t.covered[id]; known {
		return answer
	}
	t.covered[id] = t.cover(m)
	return t.covered[id]
}

func (t *mountTable) cover(m *mountPoint) bool {
	at := m
	for range t.list { // no more steps up than there are mounts
		parent := t.byID[at.Parent]
		if parent == nil || parent == at {
			break
		}
		if slices.ContainsFunc(t.list, func(o *mountPoint) bool {
			return o != at && o.Parent == at.Parent && below(at.Mountpoint, o.Mountpoint)
		}) {
			return true
		}
		at = parent
	}
	return slices.ContainsFunc(t.list, func(o *mountPoint) bool {
		return o != m && o.Parent == m.ID && o.Mountpoint == m.Mountpoint
	})
}

// below tells whether a path is another one, or beneath it.
func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

func (l *look) judgeMounts() {
	for _, f := range l.mounts.judge() {
		l.hits = append(l.hits, hit{Finding: f})
	}
	l.judgeQueues()
}

// judge says which mounts CRIU cannot save, or could not make again.
func (t *mountTable) judge() []Finding {
	var all []Finding
	for _, m := range t.list {
		if m.root || m.external || t.bindOf(m, func(o *mountPoint) bool { return o.external || o.root }) {
			continue
		}
		f := t.judgeOne(m)
		if f == nil {
			continue
		}
		f.Blocks, f.FD, f.Path = true, -1, m.Mountpoint
		all = append(all, *f)
	}
	return all
}

func (t *mountTable) judgeOne(m *mountPoint) *Finding {
	switch {
	case m.Root != "/" && !t.bindOf(m, func(o *mountPoint) bool { return o.Root == "/" }):
		return &Finding{Kind: "mount-root", What: fmt.Sprintf("the mount shows %s of a file system that is mounted nowhere else in the container", m.Root),
			Remedy: "unmount it first"}
	case m.Root != "/":
	case m.FSType == "fuse" || m.FSType == "fuseblk" || strings.HasPrefix(m.FSType, "fuse."):
		return &Finding{Kind: "mount-fuse", What: "CRIU cannot save a FUSE mount", Remedy: "unmount it first, or mount it from outside as a volume"}
	case m.FSType == "overlay":
		return &Finding{Kind: "overlay", What: "CRIU saves an overlay that was mounted in the container, but cannot mount it again",
			Remedy: "unmount it first, or mount it from outside as a volume"}
	case !savedFileSystem(m.FSType):
		return &Finding{Kind: "mount-fs", What: fmt.Sprintf("CRIU cannot save a mount of type %s that was made in the container", m.FSType),
			Remedy: "unmount it first, or mount it from outside as a volume"}
	}
	if m.master != "" && !t.hasMaster(m) {
		return &Finding{Kind: "mount-sharing", What: "the mount gets its events from one outside of the container",
			Remedy: "make it private first (`mount --make-private`)"}
	}
	return nil
}

// bindOf tells whether m shows a part of another mount for which ok holds.
func (t *mountTable) bindOf(m *mountPoint, ok func(*mountPoint) bool) bool {
	return slices.ContainsFunc(t.list, func(o *mountPoint) bool {
		return o != m && o.Major == m.Major && o.Minor == m.Minor && below(m.Root, o.Root) && ok(o)
	})
}

func (t *mountTable) hasMaster(m *mountPoint) bool {
	return slices.ContainsFunc(t.list, func(o *mountPoint) bool { return o.shared == m.master })
}

// savedFileSystem tells whether CRIU can save a mount of this type, made by
// the container (criu/filesystems.c, fstypes; find_fstype_by_name).
func savedFileSystem(name string) bool {
	switch name {
	case "proc", "sysfs", "devtmpfs", "binfmt_misc", "tmpfs", "devpts", "simfs", "pstore", "mqueue", "securityfs",
		"fusectl", "debugfs", "tracefs", "cgroup", "cgroup2", "aufs", "autofs":
		return true
	}
	return false
}

// judgeQueues finds POSIX message queues by their files: CRIU wants their file
// system to be empty (criu/filesystems.c, dump_empty_fs). Who has one open was
// found by the descriptor, and is told the name; one that nobody has open is a
// finding of its own.
func (l *look) judgeQueues() {
	for _, m := range l.mounts.list {
		if m.FSType != "mqueue" || m.external || m.nested || l.mounts.isCovered(m.ID) {
			continue
		}
		names, err := l.r.namesIn(l.root, m.Mountpoint)
		if err != nil {
			continue
		}
		unopened := ""
		for _, name := range names {
			if !l.nameQueue("/"+name, m.Mountpoint+"/"+name) && unopened == "" {
				unopened = m.Mountpoint + "/" + name
			}
		}
		if unopened != "" {
			l.hits = append(l.hits, hit{Finding: Finding{Kind: "mqueue", Blocks: true, FD: -1, Path: unopened,
				What: "CRIU cannot save a POSIX message queue", Remedy: "let the program remove it first (mq_unlink)"}})
		}
		return
	}
}

// nameQueue gives the findings of an open queue, which is called name within
// its file system, its path and the remedy for both: a queue lives on when it
// was closed.
func (l *look) nameQueue(name, path string) (open bool) {
	for i := range l.hits {
		h := &l.hits[i]
		if h.Kind == "mqueue" && h.FD >= 0 && (h.Path == name || h.Path == path) {
			h.Path, h.Remedy, open = path, "let the program close and remove it first (mq_close, mq_unlink)", true
		}
	}
	return open
}

// device is the number that stat gives the files of a mount.
func (m *mountPoint) device() uint64 { return unix.Mkdev(uint32(m.Major), uint32(m.Minor)) }
