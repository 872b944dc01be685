package preflight

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// watch is what an inotify or fanotify descriptor looks at. The kernel keeps
// the inode and no name, and that is all that it shows.
type watch struct {
	dev, ino   uint64
	handleType int32
	handle     []byte
}

// parseWatch reads the rest of a line "inotify wd:1 ino:c sdev:2b mask:2
// ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:0c000000..." in fdinfo
// (fs/notify/fdinfo.c). ok is false for a line that shows no inode.
func parseWatch(s string) (w watch, ok bool) {
	var seen int
	for word := range strings.FieldsSeq(s) {
		key, value, _ := strings.Cut(word, ":")
		var err error
		var n uint64
		switch key {
		case "ino", "sdev", "fhandle-type", "fhandle-bytes":
			n, err = strconv.ParseUint(value, 16, 64)
		case "f_handle":
			w.handle, err = hex.DecodeString(value)
		default:
			continue
		}
		if err != nil {
			return watch{}, false
		}
		switch key {
		case "ino":
			w.ino = n
			seen++
		case "sdev": // as the kernel has it: 20 bits of minor number
			w.dev = unix.Mkdev(uint32(n>>20), uint32(n&(1<<20-1)))
			seen++
		case "fhandle-type":
			w.handleType = int32(n)
		}
	}
	return w, seen == 2
}

// judgeWatches sees to it that CRIU finds the names of what is watched
// (criu/fsnotify.c, check_open_handle). It asks the file system by its file
// handle; overlays and the kernel's own file systems know of none, unless an
// overlay was mounted with nfs_export=on. CRIU then looks through a few
// directories that it is told, and we tell it the right ones.
func (l *look) judgeWatches(ctx context.Context) error {
	lost := map[watchKey][]holder{}
	for _, p := range l.procs {
		if l.stranger[p.pid] {
			continue
		}
		for i := range p.files {
			d := &p.files[i]
			if d.info == nil {
				continue
			}
			for _, m := range d.info.More {
				if m.Key != "inotify" && m.Key != "fanotify" {
					continue
				}
				if w, ok := parseWatch(m.Value); ok && !l.openable(w) {
					lost[watchKey{w.dev, w.ino}] = append(lost[watchKey{w.dev, w.ino}], holder{p, d})
				}
			}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	found, err := l.search(ctx, lost)
	if err != nil {
		return err
	}
	for key, holders := range lost {
		if found[key] != "" {
			l.needs.IrmapPaths = append(l.needs.IrmapPaths, found[key])
			continue
		}
		for _, h := range holders {
			l.add(h.p, h.d, Finding{Kind: "inotify", Blocks: true,
				What:   fmt.Sprintf("CRIU cannot find the name of a file that is watched (inode %d of device %d:%d)", key.ino, unix.Major(key.dev), unix.Minor(key.dev)),
				Remedy: "if it is deleted, end the watch; if not, --criu-option irmap-scan-path=DIRECTORY helps to find it"})
		}
	}
	// CRIU looks through the whole of each, until it finds what it seeks.
	slices.SortFunc(l.needs.IrmapPaths, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(b, "/"), strings.Count(a, "/")), cmp.Compare(a, b))
	})
	l.needs.IrmapPaths = slices.Compact(l.needs.IrmapPaths)
	return nil
}

type watchKey struct{ dev, ino uint64 }

// openable tells whether the watched inode can be opened by its handle and has
// a name.
func (l *look) openable(w watch) bool {
	if len(w.handle) == 0 {
		return false
	}
	for _, m := range l.mounts.list {
		if m.nested || m.device() != w.dev || strings.HasPrefix(m.FSType, "fuse") || l.mounts.isCovered(m.ID) {
			continue
		}
		if path := l.openHandle(m, w); path != "" {
			if i, err := l.statIn(path); err == nil && i.ino == w.ino {
				return true
			}
		}
	}
	return false
}

func (l *look) openHandle(m *mountPoint, w watch) string {
	at, err := openIn(l.root, m.Mountpoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	if err != nil {
		return ""
	}
	defer unix.Close(at)
	fd, err := unix.OpenByHandleAt(at, unix.NewFileHandle(w.handleType, w.handle), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	self, err := openProcess(unix.Getpid())
	if err != nil {
		return ""
	}
	defer unix.Close(self)
	path, err := l.r.link(self, "fd/"+strconv.Itoa(fd))
	if err != nil {
		return ""
	}
	return path
}

// statIn stats a path as the container sees it.
func (l *look) statIn(path string) (inode, error) {
	fd, err := openIn(l.root, path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return inode{}, err
	}
	defer unix.Close(fd)
	return statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC)
}

// search looks for the names of inodes: first where a program's files usually
// are, then everywhere, within reason. Those without a name are left out.
func (l *look) search(ctx context.Context, wanted map[watchKey][]holder) (map[watchKey]string, error) {
	s := &searcher{l: l, wanted: wanted, found: map[watchKey]string{}, left: searchLimit}
	for _, p := range l.procs {
		for i := range p.files {
			if d := &p.files[i]; d.kind() == unix.S_IFDIR && strings.HasPrefix(d.link, "/") {
				s.visit(d.link)
			}
		}
	}
	for _, m := range l.mounts.list {
		wants := func(k watchKey) bool { return k.dev == m.device() && s.found[k] == "" }
		for k := range wanted {
			if wants(k) && !m.nested && !strings.HasPrefix(m.FSType, "fuse") {
				if err := s.walk(ctx, m); err != nil {
					return nil, err
				}
				break
			}
		}
	}
	return s.found, nil
}

// searchLimit is how many directory entries are looked at: some tenths of a
// second.
const searchLimit = 100_000

type searcher struct {
	l      *look
	wanted map[watchKey][]holder
	found  map[watchKey]string
	left   int
}

// visit looks at one path.
func (s *searcher) visit(path string) (inode, error) {
	i, err := s.l.statIn(path)
	if err != nil {
		return i, err
	}
	key := watchKey{i.dev, i.ino}
	if _, ok := s.wanted[key]; ok && s.found[key] == "" {
		s.found[key] = path
	}
	return i, nil
}

// walk goes through a mount, directories near its top first, until all is
// found. It stays on the mount's device.
func (s *searcher) walk(ctx context.Context, m *mountPoint) error {
	queue := []string{m.Mountpoint}
	for len(queue) > 0 && s.left > 0 && len(s.found) < len(s.wanted) {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir := queue[0]
		queue = queue[1:]
		i, err := s.visit(dir)
		if err != nil || i.dev != m.device() || i.kind() != unix.S_IFDIR {
			continue
		}
		names, err := s.l.r.namesIn(s.l.root, dir)
		if err != nil {
			continue
		}
		s.left -= len(names)
		for _, name := range names {
			if m.FSType == "proc" && isNumber(name) {
				continue // the processes: many, and passing
			}
			queue = append(queue, strings.TrimSuffix(dir, "/")+"/"+name)
		}
	}
	return nil
}

func isNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}
