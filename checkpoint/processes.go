package checkpoint

import (
	"errors"
	"io/fs"
	"strings"

	"crucible/container/proc"
	"crucible/images"
	"crucible/images/inspect/namespaces"
	"crucible/images/inspect/processes"
	"crucible/proto/imagepb"
)

// readProcess is one process as processes.pb shows it.
func readProcess(f proc.FS, p *proc.Process) (*imagepb.Process, error) {
	stat, err := f.Stat(p.PID)
	if err != nil {
		return nil, err
	}
	status, err := f.Status(p.PID)
	if err != nil {
		return nil, err
	}
	out := &imagepb.Process{
		Pid: innermost(status.NSPID, p.PID), HostPid: int32(p.PID),
		Pgid: innermost(status.NSPGID, 0), Sid: innermost(status.NSSID, 0),
		Comm: imagepb.Text(stat.Comm), State: stat.State, Threads: uint32(stat.Threads), StartTicks: stat.StartTicks,
		Uids: ids(status.UIDs), Gids: ids(status.GIDs), VirtualBytes: status.VmSize, ResidentBytes: status.RSS,
		CpusAllowed: status.CPUs,
	}
	// A process whose memory is gone, or that ends, has no program any more.
	exe, err := f.Exe(p.PID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out.Exe = imagepb.Text(exe)
	args, err := f.Args(p.PID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, a := range args {
		out.Args = append(out.Args, imagepb.Text(a))
	}
	fds, err := f.FDs(p.PID)
	if err != nil {
		return nil, err
	}
	out.Fds = map[string]uint32{}
	for _, target := range fds {
		out.Fds[imagepb.Text(kindOfFD(target))]++
	}
	return out, nil
}

// record completes the records of processes and namespaces by what CRIU has
// written, and writes them. For a few processes that takes 0.2 ms, too little to be worth another
// thread. What cannot be read of CRIU's is no reason to have no image: nothing of
// the record is needed for a restore.
func (d *dump) record() error {
	if d.processes == nil {
		return nil
	}
	if err := processes.Complete(d.draft.CRIUDir(), d.processes); err != nil {
		d.processes.Incomplete = imagepb.Text(strings.ReplaceAll(err.Error(), d.draft.CRIUDir()+"/", ""))
	}
	// The same goes for what CRIU says of the namespaces.
	_ = namespaces.Complete(d.draft.CRIUDir(), d.namespaces, d.processes)
	return errors.Join(d.draft.Put(images.Processes, d.processes), d.draft.Put(images.Namespaces, d.namespaces))
}

// putStatistics counts what is in the image. What cannot be read of CRIU's counts
// is not counted.
func (d *dump) putStatistics() error {
	s := &imagepb.Statistics{}
	for _, f := range d.draft.Digested() {
		switch {
		case images.IsPages(f.Path):
			s.MemoryBytes += uint64(f.Size)
		case strings.HasPrefix(f.Path, images.CRIU+"/"):
			s.StateBytes += uint64(f.Size)
		case strings.HasPrefix(f.Path, images.Archives+"/"):
			s.ChangesBytes += uint64(f.Size)
		}
	}
	processes.Count(d.processes, s)
	s.Criu, _ = processes.Counts(d.draft.CRIUDir())
	return d.draft.Put(images.Counts, s)
}

// innermost is the number of a process in its own pid namespace.
func innermost(numbers []int, otherwise int) int32 {
	if len(numbers) == 0 {
		return int32(otherwise)
	}
	return int32(numbers[len(numbers)-1])
}

func ids(v [4]uint32) *imagepb.IDs {
	return &imagepb.IDs{Real: v[0], Effective: v[1], Saved: v[2], Filesystem: v[3]}
}

// kindOfFD names the kind of a descriptor by the target of its link in
// /proc/PID/fd: "socket:[1]", "pipe:[1]", "anon_inode:[eventpoll]", "/path".
func kindOfFD(target string) string {
	kind, rest, found := strings.Cut(target, ":")
	switch {
	case strings.HasPrefix(target, "/"):
		return "file"
	case kind == "anon_inode" && found:
		return strings.Trim(rest, "[]")
	case found:
		return kind
	}
	return "other"
}
