package processes

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"crucible/images"
	"crucible/images/inspect/criufile"
	"crucible/proto/imagepb"
)

// Read is the record of an image, completed where the crucible that wrote it did
// not do so. An image of a pre-dump has none.
func Read(i *images.Image) (*imagepb.Processes, error) {
	p := &imagepb.Processes{}
	if err := i.Get(images.Processes, p); err != nil {
		return nil, err
	}
	if p.Complete {
		return p, nil
	}
	if err := Complete(i.CRIUDir(), p); err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	return p, nil
}

// Complete fills in what CRIU's files in a directory say of the processes. What
// was there from CRIU is replaced; after an error it is not complete.
func Complete(dir string, p *imagepb.Processes) error {
	p.Complete, p.Incomplete, p.Files, p.Sockets = false, "", nil, nil
	r := reader{dir: dir, files: map[uint32]*imagepb.OpenFile{}, locks: map[int32][]*imagepb.FileLock{}, cgroups: map[uint32]map[string]string{}}
	if err := r.open(p); err != nil {
		return err
	}
	trees, err := load[tree](r, "pstree.img")
	if err != nil {
		return err
	}
	threads := map[int32][]uint32{}
	for _, t := range trees {
		threads[t.Pid] = t.Threads
	}
	if err := r.all(p.Processes, threads); err != nil {
		return err
	}
	p.Complete = true
	return nil
}

// all reads the processes, 0.1 ms each, many of them on all processors: for a
// few, another thread is not there in time.
func (r reader) all(processes []*imagepb.Process, threads map[int32][]uint32) error {
	const few = 8
	workers := 1
	if len(processes) > few {
		workers = runtime.GOMAXPROCS(0)
	}
	errs := make([]error, len(processes))
	var next atomic.Int64
	work := func() {
		for {
			n := int(next.Add(1)) - 1
			if n >= len(processes) {
				return
			}
			one := processes[n]
			if err := r.process(one, threads[one.Pid]); err != nil {
				errs[n] = fmt.Errorf("process %d: %w", one.Pid, err)
			}
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err // the others say the same
		}
	}
	return nil
}

// Prepare does beforehand what Complete need not do while somebody waits for it,
// most of what it does for a few processes.
func Prepare() error {
	_, err := proto.Marshal(oneOfEach())
	_, err2 := proto.Marshal(&imagepb.Statistics{Criu: &imagepb.CRIUCounts{}})
	return errors.Join(err, err2,
		criufile.Prepare[file]("files"), criufile.Prepare[lock]("filelocks"), criufile.Prepare[cgroups]("cgroup"), criufile.Prepare[tree]("pstree"),
		criufile.Prepare[ids]("ids-1"), criufile.Prepare[core]("core-1"), criufile.Prepare[place]("fs-1"), criufile.Prepare[descriptor]("fdinfo-1"),
		criufile.Prepare[mm]("mm-1"),
	)
}

// oneOfEach has every message of the record, so that protobuf has looked at all.
func oneOfEach() *imagepb.Processes {
	c := &imagepb.Credentials{Uids: &imagepb.IDs{}, Gids: &imagepb.IDs{}}
	return &imagepb.Processes{
		Files:   []*imagepb.OpenFile{{Timer: &imagepb.PosixTimer{}, Watches: []*imagepb.Watch{{}}}},
		Sockets: []*imagepb.Socket{{}},
		Processes: []*imagepb.Process{{
			Uids: c.Uids, Gids: c.Gids, Credentials: c, Tasks: []*imagepb.Thread{{}}, Limits: []*imagepb.Limit{{}}, Actions: []*imagepb.SignalAction{{}},
			Descriptors: []*imagepb.Descriptor{{}}, AddressSpace: &imagepb.AddressSpace{}, Mappings: []*imagepb.Mapping{{}},
			IntervalTimers: []*imagepb.IntervalTimer{{}}, Locks: []*imagepb.FileLock{{}}, Fds: map[string]uint32{"file": 1}, Cgroups: map[string]string{"": "/"},
		}},
	}
}

// reader reads the files of one directory.
type reader struct {
	dir     string
	files   map[uint32]*imagepb.OpenFile // by their id
	locks   map[int32][]*imagepb.FileLock
	cgroups map[uint32]map[string]string // by CRIU's number of the set
}

// load reads a file that CRIU may have left out.
func load[T any](r reader, format string, args ...any) ([]T, error) {
	all, err := criufile.Load[T](filepath.Join(r.dir, fmt.Sprintf(format, args...)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return all, err
}

type tree struct {
	Pid     int32    `criu:"pid"`
	Threads []uint32 `criu:"threads"` // of a zombie: anything
}

type ids struct {
	VM    uint32 `criu:"vm_id"`
	Files uint32 `criu:"files_id"`
	FS    uint32 `criu:"fs_id"`
	Sig   uint32 `criu:"sighand_id"`
}

type place struct {
	Cwd   uint32 `criu:"cwd_id"`
	Root  uint32 `criu:"root_id"`
	Umask uint32 `criu:"umask"`
}

type descriptor struct {
	File  uint32 `criu:"id"`
	Flags uint32 `criu:"flags"`
	FD    uint32 `criu:"fd"`
}

type lock struct {
	Kind   uint32 `criu:"flag"`
	Type   uint32 `criu:"type"`
	Pid    int32  `criu:"pid"`
	FD     int32  `criu:"fd"`
	Start  int64  `criu:"start"`
	Length int64  `criu:"len"`
}

type cgroups struct {
	Sets []struct {
		ID      uint32 `criu:"id"`
		Members []struct {
			Name string `criu:"name"`
			Path string `criu:"path"`
		} `criu:"ctls"`
	} `criu:"sets"`
}

// open reads what belongs to no process alone.
func (r reader) open(p *imagepb.Processes) error {
	if err := r.openFiles(p); err != nil {
		return err
	}
	locks, err := load[lock](r, "filelocks.img")
	if err != nil {
		return err
	}
	for _, l := range locks {
		r.locks[l.Pid] = append(r.locks[l.Pid], &imagepb.FileLock{
			Fd: uint32(l.FD), Kind: lockKind(l.Kind), Type: l.Type, Start: uint64(l.Start), Length: uint64(l.Length),
		})
	}
	groups, err := load[cgroups](r, "cgroup.img")
	if err != nil {
		return err
	}
	for _, g := range groups {
		for _, s := range g.Sets {
			paths := map[string]string{}
			for _, m := range s.Members {
				paths[imagepb.Text(m.Name)] = imagepb.Text(m.Path)
			}
			r.cgroups[s.ID] = paths
		}
	}
	return nil
}

// lockKind names FL_* of criu/include/file-lock.h.
func lockKind(flag uint32) string {
	switch {
	case flag&1 != 0:
		return "posix"
	case flag&2 != 0:
		return "flock"
	case flag&4 != 0:
		return "open file"
	case flag&8 != 0:
		return "lease"
	}
	return fmt.Sprint(flag)
}

// process fills in one of them.
func (r reader) process(p *imagepb.Process, threads []uint32) error {
	// CRIU numbers what processes share; a zombie has nothing of it.
	shared, err := load[ids](r, "ids-%d.img", p.Pid)
	if err != nil {
		return err
	}
	if len(shared) > 0 {
		s := shared[0]
		p.MemoryId, p.FilesId, p.FilesystemId, p.SignalsId = s.VM, s.Files, s.FS, s.Sig
	}
	if err := r.core(p, threads); err != nil {
		return err
	}
	places, err := load[place](r, "fs-%d.img", p.Pid)
	if err != nil {
		return err
	}
	if len(places) > 0 {
		p.Cwd, p.Root, p.Umask = r.files[places[0].Cwd].GetPath(), r.files[places[0].Root].GetPath(), places[0].Umask
	}
	p.Descriptors = nil
	if p.FilesId != 0 {
		all, err := load[descriptor](r, "fdinfo-%d.img", p.FilesId)
		if err != nil {
			return err
		}
		for _, d := range all {
			p.Descriptors = append(p.Descriptors, &imagepb.Descriptor{Fd: d.FD, File: d.File, CloseOnExec: d.Flags&1 != 0})
		}
	}
	p.Locks = r.locks[p.Pid]
	return r.memory(p)
}
