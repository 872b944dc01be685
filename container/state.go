package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/network"
)

// Status is where a container stands in its life, see the package documentation.
type Status string

const (
	Created Status = "created"
	Running Status = "running"
	Frozen  Status = "frozen"
	Stopped Status = "stopped"
)

// UnknownExit is the exit status of a container whose monitor was killed, so
// that nobody could record the real one.
const UnknownExit = 255

// State is what is known of a container between two commands: state.json.
type State struct {
	Name string `json:"name"`
	// Recorded is the last status that was written down. It is created,
	// running or stopped; whether a running container is frozen, or is
	// gone since, is asked of the kernel: see [Container.Status].
	Recorded Status  `json:"recorded"`
	Init     Process `json:"init"`
	Monitor  Process `json:"monitor"`
	// MonitorThread is the monitor's thread in whose mount namespace the root
	// filesystem was put together.
	MonitorThread int `json:"monitorThread,omitempty"`
	// Maker is the command that creates the container, until it has started for
	// the first time: if that was killed nobody wants the container.
	Maker Process `json:"maker,omitzero"`
	// Starting: Monitor is bringing it up right now.
	Starting   bool                `json:"starting,omitempty"`
	Boot       string              `json:"boot"` // /proc/sys/kernel/random/boot_id
	Created    time.Time           `json:"created"`
	Started    time.Time           `json:"started,omitzero"`
	Finished   time.Time           `json:"finished,omitzero"`
	ExitStatus *int                `json:"exitStatus,omitempty"` // 128+N after signal N
	OOMKilled  bool                `json:"oomKilled,omitempty"`  // the kernel killed a task for want of memory
	Terminal   bool                `json:"terminal,omitempty"`
	Remove     bool                `json:"remove,omitempty"` // delete it when it stops
	Net        network.Config      `json:"net"`
	Attachment *network.Attachment `json:"attachment,omitempty"`
	// LastAddress is the one that the container had last: it gets it again if it
	// is free.
	LastAddress netip.Prefix `json:"lastAddress,omitzero"`
	// Loader brings the container its memory, after a lazy restore.
	Loader Process `json:"loader,omitzero"`
	// Image is the image that the container was last checkpointed to or
	// restored from, as NAME@N.
	Image string `json:"image,omitempty"`
	// Tracked says which checkpoint was the last to have the kernel forget which
	// memory was written until then, or to try: its start (Manifest.created_unix_ns).
	// An image tells what has changed only since that one.
	Tracked int64 `json:"tracked,omitempty"`
}

// Process names a process so that a reused pid is not taken for it.
type Process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of proc_pid_stat(5), clock ticks since boot
}

// Self is the calling process.
func Self() Process { p, _ := ProcessOf(os.Getpid()); return p }

// ProcessOf names a living process.
func ProcessOf(pid int) (Process, error) {
	start, _, err := startTime(pid)
	return Process{Pid: pid, Start: start}, err
}

// Alive tells whether the process runs still; a zombie does not.
func (p Process) Alive() bool {
	if p.Pid <= 0 {
		return false
	}
	start, state, err := startTime(p.Pid)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// processStat reads a process's name and, from the third on, the fields of
// proc_pid_stat(5).
func processStat(pid int) (comm string, fields []string, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", nil, err
	}
	// The name is in parentheses and may itself hold any character.
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if 0 <= open && open < end {
		fields = strings.Fields(string(data[end+1:]))
	}
	if len(fields) < 20 {
		return "", nil, fmt.Errorf("read /proc/%d/stat: unexpected form", pid)
	}
	return string(data[open+1 : end]), fields, nil
}

// startTime is a process's start time and state letter.
func startTime(pid int) (uint64, byte, error) {
	_, fields, err := processStat(pid)
	if err != nil {
		return 0, 0, err
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}

// Container is one container's directory and what was last read from it.
type Container struct {
	Root  Root
	Name  string
	Dir   string
	State State
}

func (c *Container) path(file string) string { return filepath.Join(c.Dir, file) }

// Rootfs is the mount point of the root filesystem in the monitor's mount namespace.
func (c *Container) Rootfs() string { return c.path("rootfs") }

// Layer is the directory that holds the private upper layer of the root
// filesystem, on disk or under a tmpfs of the monitor's mount namespace.
func (c *Container) Layer() string { return c.path("layer") }

// Log is the file to which a container's output is written.
func (c *Container) Log() string { return c.path("log") }

func (c *Container) load() error {
	data, err := os.ReadFile(c.path("state.json"))
	if err != nil {
		return fmt.Errorf("read state of container %s: %w", c.Name, err)
	}
	var fresh State // what the file does not name must not survive from before
	if err := json.Unmarshal(data, &fresh); err != nil {
		return fmt.Errorf("read state of container %s: %s: %w", c.Name, c.path("state.json"), err)
	}
	c.State = fresh
	return nil
}

// Reload reads the state again.
func (c *Container) Reload() error { return c.load() }

// save writes the state for the next command to read: whole or not at all.
func (c *Container) save() error {
	data, err := json.Marshal(c.State)
	if err != nil {
		return err
	}
	return writeFile(c.path("state.json"), data)
}

// Update changes the state under the container's lock.
func (c *Container) Update(change func(*State)) error {
	unlock, err := c.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.load(); err != nil {
		return err
	}
	change(&c.State)
	return c.save()
}

func writeFile(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Lock keeps other commands from changing the state at the same time. It is
// held for moments only, never while a container is being checkpointed.
func (c *Container) Lock() (unlock func(), err error) {
	f, err := os.Open(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{Name: c.Name, Root: c.Root}
	}
	if err != nil {
		return nil, fmt.Errorf("lock container %s: %w", c.Name, err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock container %s: %w", c.Name, err)
	}
	return func() { f.Close() }, nil
}

// Spec reads the bundle's config.json as it was when the container was created.
// One that is being deleted is a *NotFoundError.
func (c *Container) Spec() (*specs.Spec, error) {
	spec, err := LoadSpec(c.path("config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := os.Lstat(c.path("state.json")); errors.Is(gone, fs.ErrNotExist) {
			return nil, &NotFoundError{Name: c.Name, Root: c.Root}
		}
	}
	return spec, err
}

// Group opens the container's cgroup.
func (c *Container) Group() (*cgroup.Group, error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	return layout.Open(c.Name)
}

// Status asks the kernel where the container stands.
func (c *Container) Status() (Status, error) {
	if c.State.Recorded == Stopped {
		return Stopped, nil
	}
	if c.State.Boot != bootID() || !c.State.Init.Alive() {
		return Stopped, nil
	}
	if c.State.Recorded == Created {
		return Created, nil
	}
	g, err := c.Group()
	if err != nil {
		return Running, nil // it is being taken down right now
	}
	frozen, err := g.Frozen()
	if err == nil && frozen {
		return Frozen, nil
	}
	return Running, nil
}

// Starting is what a container is said to be that a monitor is bringing up.
const Starting Status = "being started"

// idle returns a *StateError unless the container, whose state has just been
// read, is stopped and nobody is bringing it up. A created one is still to be started.
func (c *Container) idle(op string) error {
	is, err := c.Status()
	if err != nil {
		return err
	}
	if s := c.State; s.Starting && s.Boot == bootID() && s.Monitor.Alive() && s.Monitor != Self() {
		is = Starting
	}
	if is != Stopped {
		return &StateError{Op: op, Name: c.Name, Is: is, Want: []Status{Stopped}}
	}
	return nil
}

// Require returns a *StateError unless the container is in one of the states.
func (c *Container) Require(op string, want ...Status) (Status, error) {
	is, err := c.Status()
	if err != nil {
		return is, err
	}
	for _, s := range want {
		if is == s {
			return is, nil
		}
	}
	return is, &StateError{Op: op, Name: c.Name, Is: is, Want: want}
}

// bootID tells a state that was written before the last boot from a fresh one:
// the state directory may well outlive the boot.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
