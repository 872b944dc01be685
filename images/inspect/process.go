package inspect

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/images/inspect/memory"
)

// Process is a process of the container. The numbers are the container's.
type Process struct {
	Pid     int `json:"pid"`
	Parent  int `json:"ppid"` // 0: outside
	Group   int `json:"pgid"`
	Session int `json:"sid"`
	// State is running, stopped (by a signal) or zombie.
	State string `json:"state"`
	// Ended says how a zombie has ended: "exit status 3", "SIGKILL".
	Ended  string   `json:"ended,omitempty"`
	Comm   string   `json:"comm"`
	Args   []string `json:"args,omitempty"`
	UID    uint32   `json:"uid"` // effective
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
	// Exe, Directory and Root are paths in the container.
	Exe       string `json:"exe,omitempty"`
	Directory string `json:"cwd,omitempty"`
	Root      string `json:"root,omitempty"`
	// Memory is the bytes of its memory that are in the image and those that it
	// builds on. Memory that processes share is not counted.
	Memory  uint64   `json:"memoryBytes"`
	Threads []Thread `json:"threads"` // the first is the process itself

	Descriptors []Descriptor `json:"-"`

	exe, directory, root uint32 // ids of files
}

// Thread is a thread of a process.
type Thread struct {
	Tid    int    `json:"tid"`
	Comm   string `json:"comm"`
	Policy string `json:"policy"` // of sched(7)
	// Nice is for the usual policies, Priority for the others.
	Nice     int `json:"nice"`
	Priority int `json:"priority,omitempty"`
}

// Command is the command line, or the name in brackets where it has none, as
// ps(1) shows it.
func (p *Process) Command() string {
	if len(p.Args) == 0 {
		return "[" + p.Comm + "]"
	}
	return strings.Join(p.Args, " ")
}

// CRIU's messages, as far as they are shown (proto/criu).
type (
	pstreeEntry struct {
		Pid     int      `criu:"pid"`
		Ppid    int      `criu:"ppid"`
		Pgid    int      `criu:"pgid"`
		Sid     int      `criu:"sid"`
		Threads []uint32 `criu:"threads"`
	}
	coreEntry struct {
		Task   taskEntry   `criu:"tc"`
		Thread threadEntry `criu:"thread_core"`
	}
	taskEntry struct {
		State    int    `criu:"task_state"`
		ExitCode uint32 `criu:"exit_code"`
		Comm     string `criu:"comm"`
	}
	threadEntry struct {
		Nice     int        `criu:"sched_nice"`
		Policy   int        `criu:"sched_policy"`
		Priority int        `criu:"sched_prio"`
		Comm     string     `criu:"comm"`
		Creds    credsEntry `criu:"creds"`
	}
	credsEntry struct {
		UID    uint32   `criu:"euid"`
		GID    uint32   `criu:"egid"`
		Groups []uint32 `criu:"groups"`
	}
	idsEntry struct {
		Files uint32 `criu:"files_id"`
	}
	mmEntry struct {
		ArgStart uint64 `criu:"mm_arg_start"`
		ArgEnd   uint64 `criu:"mm_arg_end"`
		EnvStart uint64 `criu:"mm_env_start"`
		EnvEnd   uint64 `criu:"mm_env_end"`
		Exe      uint32 `criu:"exe_file_id"`
	}
	fsEntry struct {
		Cwd  uint32 `criu:"cwd_id"`
		Root uint32 `criu:"root_id"`
	}
)

// States of task_core_entry (criu/include/pid.h).
const (
	taskAlive   = 1
	taskDead    = 2
	taskStopped = 3
	taskZombie  = 6
)

func (r *reader) processes() ([]*Process, error) {
	tree, err := load[pstreeEntry](r, "pstree.img")
	if err != nil {
		return nil, err
	}
	m, err := memory.Open(r.image)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var all []*Process
	for _, e := range tree {
		p := &Process{Pid: e.Pid, Parent: e.Ppid, Group: e.Pgid, Session: e.Sid}
		if err := r.core(p, e.Threads); err != nil {
			return nil, err
		}
		if p.State != "zombie" {
			if err := r.living(p, m); err != nil {
				return nil, err
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// core fills in what the cores of the threads say.
func (r *reader) core(p *Process, tids []uint32) error {
	core, err := loadOne[coreEntry](r, "core-%d.img", p.Pid)
	if err != nil {
		return err
	}
	p.Comm, p.State = core.Task.Comm, "running"
	p.UID, p.GID, p.Groups = core.Thread.Creds.UID, core.Thread.Creds.GID, core.Thread.Creds.Groups
	switch core.Task.State {
	case taskStopped:
		p.State = "stopped"
	case taskDead, taskZombie:
		// Of these CRIU writes a number that means nothing as the thread's.
		p.State, p.Ended, tids = "zombie", endedText(unix.WaitStatus(core.Task.ExitCode)), nil
	}
	p.Threads = []Thread{thread(p.Pid, p.Comm, core.Thread)}
	for _, tid := range tids {
		if int(tid) == p.Pid {
			continue
		}
		core, err := loadOne[coreEntry](r, "core-%d.img", tid)
		if err != nil {
			return err
		}
		p.Threads = append(p.Threads, thread(int(tid), p.Comm, core.Thread))
	}
	return nil
}

func thread(tid int, comm string, e threadEntry) Thread {
	if e.Comm != "" {
		comm = e.Comm
	}
	return Thread{Tid: tid, Comm: comm, Policy: policyName(e.Policy), Nice: e.Nice, Priority: e.Priority}
}

func endedText(s unix.WaitStatus) string {
	if s.Signaled() {
		return signalName(int(s.Signal()))
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}

// living fills in what a process has that has not ended.
func (r *reader) living(p *Process, m *memory.Memory) error {
	mm, err := loadOne[mmEntry](r, "mm-%d.img", p.Pid)
	if err != nil {
		return err
	}
	fs, err := loadOne[fsEntry](r, "fs-%d.img", p.Pid)
	if err != nil {
		return err
	}
	p.exe, p.directory, p.root = mm.Exe, fs.Cwd, fs.Root
	space, err := m.Process(p.Pid)
	if err != nil {
		return err
	}
	for _, run := range space.Runs() {
		p.Memory += run.Pages * m.PageSize()
	}
	p.Args, err = stringsAt(space, mm.ArgStart, mm.ArgEnd)
	var absent *memory.Absent
	if errors.As(err, &absent) { // they are in a file that is mapped, say
		return nil
	}
	return err
}

// longestStrings is more than the kernel takes for arguments and environment
// together, which is a quarter of the stack's limit (execve(2)).
const longestStrings = 64 << 20

// stringsAt reads strings that lie one after the other in memory.
func stringsAt(space *memory.Space, start, end uint64) ([]string, error) {
	if end <= start {
		return nil, nil
	}
	b := make([]byte, min(end-start, longestStrings))
	n, err := space.ReadAt(b, int64(start))
	text := strings.TrimSuffix(string(b[:n]), "\x00")
	if err != nil || text == "" {
		return nil, err
	}
	return strings.Split(text, "\x00"), nil
}
