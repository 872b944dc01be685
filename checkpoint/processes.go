package checkpoint

import (
	"errors"
	"io/fs"
	"strings"

	"crucible/checkpoint/preflight"
	"crucible/container/proc"
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
		Comm: stat.Comm, State: stat.State, Threads: uint32(stat.Threads), StartTicks: stat.StartTicks,
		Uids: ids(status.UIDs), Gids: ids(status.GIDs), VirtualBytes: status.VmSize, ResidentBytes: status.RSS,
	}
	// A process whose memory is gone, or that ends, has no program any more.
	if out.Exe, err = f.Exe(p.PID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if out.Args, err = f.Args(p.PID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fds, err := f.FDs(p.PID)
	if err != nil {
		return nil, err
	}
	out.Fds = map[string]uint32{}
	for _, target := range fds {
		out.Fds[kindOfFD(target)]++
	}
	return out, nil
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

// optionWords are the options that were in effect, by CRIU's names for them.
func optionWords(o preflight.Options, extra []string) map[string]string {
	words := map[string]string{}
	for name, set := range map[string]bool{
		"tcp-established": o.TCPEstablished, "tcp-close": o.TCPClose, "skip-in-flight": o.SkipInFlight,
		"file-locks": o.FileLocks, "shell-job": o.ShellJob, "ext-unix-sk": o.ExtUnixSockets, "link-remap": o.LinkRemap,
	} {
		if set {
			words[name] = "true"
		}
	}
	for _, e := range extra {
		key, value, _ := strings.Cut(e, "=")
		words[key] = value
	}
	return words
}
