package preflight

import (
	"fmt"
	"os"
	"strings"
)

// Options are the options of CRIU that a container can need. As part of a
// Subject they are the user's choice, and nothing is said about what they
// allow; as part of a Report they are what the dump must be given.
type Options struct {
	TCPEstablished bool   `json:"tcpEstablished,omitempty"` // keep live TCP connections
	TCPClose       bool   `json:"tcpClose,omitempty"`       // let them be closed
	SkipInFlight   bool   `json:"skipInFlight,omitempty"`   // drop connections that nobody has accepted yet
	FileLocks      bool   `json:"fileLocks,omitempty"`
	ShellJob       bool   `json:"shellJob,omitempty"`       // a session or terminal of outside
	ExtUnixSockets bool   `json:"extUnixSockets,omitempty"` // datagram sockets connected to outside
	LinkRemap      bool   `json:"linkRemap,omitempty"`      // deleted files that have another name
	GhostLimit     uint32 `json:"ghostLimit,omitempty"`     // bytes of a deleted file; 0 is CRIU's 1 MiB
	// IrmapPaths are watched files whose names CRIU cannot find by itself.
	IrmapPaths []string `json:"irmapPaths,omitempty"`
}

// Subject is a running container.
type Subject struct {
	Init     int      // host pid of the container's first process
	Pids     []int    // all processes of its cgroup, host pids
	NetNS    *os.File // its network namespace, nil if it uses the host's
	UserNS   bool     // it has a user namespace of its own
	Frozen   bool     // its tasks stand still
	External []string // mount points inside that are made again by the caller
	Given    Options  // what the user chose
	// Nested are those in a cgroup below the container's own, and its path from
	// there.
	Nested map[int]string
}

// Finding is something in a container that a checkpoint cannot carry, carries
// only with an option, or loses.
type Finding struct {
	Kind    string `json:"kind"`             // stable: "io-uring", "mptcp", ...
	Blocks  bool   `json:"blocks,omitempty"` // CRIU would refuse the dump
	Lost    bool   `json:"lost,omitempty"`   // the dump works, and something is not there after the restore
	Pid     int    `json:"pid,omitempty"`    // host pid
	Command string `json:"command,omitempty"`
	FD      int    `json:"fd"` // -1: no descriptor
	Path    string `json:"path,omitempty"`
	What    string `json:"what"`             // one sentence
	Remedy  string `json:"remedy,omitempty"` // what to do about it
}

// String is the finding in one line.
func (f Finding) String() string {
	if f.Remedy == "" {
		return f.fact()
	}
	return f.fact() + ": " + f.Remedy
}

// fact is the finding without what to do about it.
func (f Finding) fact() string {
	var b strings.Builder
	if f.Pid != 0 {
		fmt.Fprintf(&b, "pid %d", f.Pid)
		if f.Command != "" {
			fmt.Fprintf(&b, " (%s)", f.Command)
		}
		if f.FD >= 0 {
			fmt.Fprintf(&b, " descriptor %d", f.FD)
		}
		b.WriteString(": ")
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.What)
	return b.String()
}

// Report is what was found. Findings that block come first.
type Report struct {
	Findings []Finding `json:"findings"`
	// Needs is what the user chose and what else must be given to the dump.
	Needs Options `json:"needs"`
}

// Error says that a container cannot be checkpointed as it is.
type Error struct {
	Findings []Finding // at least one
}

func (e *Error) Error() string {
	if len(e.Findings) == 0 {
		return "preflight: the container cannot be checkpointed"
	}
	s := "preflight: " + e.Findings[0].fact()
	if n := len(e.Findings) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}
