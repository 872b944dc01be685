package criu

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
	"google.golang.org/protobuf/proto"
)

// Lock says how CRIU keeps packets away from TCP sockets meanwhile. CRIU
// repeats on restore what was done on dump.
type Lock int

// The network locks. LockDefault is what CRIU was built with: iptables,
// unless its builder chose another.
const (
	LockDefault  Lock = 0
	LockNFTables Lock = 2
	LockSkip     Lock = 3 // the caller does it
)

// Common is what a dump and a restore have in common. The zero value of every
// field is CRIU's own default. CRIU neither saves nor restores any cgroup: the
// caller places the restored tasks (see StartOptions.Cgroup).
type Common struct {
	Images *os.File // the directory of the images, required
	Work   *os.File // the directory for the log; nil is Images

	LogFile  string // a plain name in Work; "" is criu.log
	Quiet    bool   // log only what is wrong, instead of what CRIU does and when
	logLevel int    // tests ask for 4, everything

	External    []string // mnt[/dev]:dev, net[4026531840]:key, unix[99], ...
	NetworkLock Lock

	TCPEstablished  bool // save or restore live connections
	TCPClose        bool // restore them closed
	SkipInFlight    bool // leave out connections nobody has accepted yet
	FileLocks       bool
	ShellJob        bool
	ExtUnixSockets  bool // unix sockets whose peer is outside
	LinkRemap       bool // hard links to deleted files
	LazyPages       bool
	OrphanPTSMaster bool // one terminal may have its master outside; on restore the new one comes as an event

	IrmapScanPaths []string

	// Extra reaches every other option of CRIU, by its long name as on its
	// command line: "ghost-fiemap", "file-validation=filesize". CRIU itself
	// says no to one that it does not know.
	Extra []string
}

// DumpOptions say what Process.Dump does. Pid and Images are required.
type DumpOptions struct {
	Common
	Pid          int
	LeaveRunning bool
	FreezeCgroup string // a directory; freeze it first, or CRIU polls in steps of 100 ms
	GhostLimit   uint32 // bytes of a deleted file that may go into the image; 0 is 1 MiB
	// TrackMemory has the kernel forget which pages were written, so that it can
	// tell which are from now on. It needs CONFIG_MEM_SOFT_DIRTY.
	TrackMemory bool
	// Parent is where the images of the last dump with TrackMemory are, relative
	// to Images: pages not written since are left out. It takes TrackMemory to
	// do that (criu/mem.c: __page_in_parent).
	Parent string
	// Timeout is how long CRIU tries to stop all tasks; 0 is 10 s.
	Timeout time.Duration
}

// RestoreOptions say what Process.Restore does. Images is required.
type RestoreOptions struct {
	Common
	Root    string // the new root file system, a mount point
	Sibling bool   // the restored root task is the caller's child, not CRIU's
}

// request translates the options into CRIU's message, and into the text of
// the configuration file for those that the message has no field for.
func (o *DumpOptions) request() (*rpc.CriuOpts, string, error) {
	if o.Pid <= 0 {
		return nil, "", fmt.Errorf("options: pid %d: not a process", o.Pid) // 0 would dump CRIU's client: us
	}
	r, config, err := o.Common.request()
	if err != nil {
		return nil, "", err
	}
	r.Pid = proto.Int32(int32(o.Pid))
	r.LeaveRunning = on(o.LeaveRunning)
	r.FreezeCgroup = text(o.FreezeCgroup)
	if o.GhostLimit > 0 {
		r.GhostLimit = &o.GhostLimit
	}
	r.TrackMem = on(o.TrackMemory)
	r.ParentImg = text(o.Parent)
	if o.Timeout > 0 { // whole seconds, and 0 would be "at once": round up
		r.Timeout = proto.Uint32(uint32((o.Timeout + time.Second - 1) / time.Second))
	}
	return r, config, nil
}

func (o *RestoreOptions) request() (*rpc.CriuOpts, string, error) {
	r, config, err := o.Common.request()
	if err != nil {
		return nil, "", err
	}
	r.Root = text(o.Root)
	r.RstSibling = on(o.Sibling)
	return r, config, nil
}

func (c *Common) request() (*rpc.CriuOpts, string, error) {
	if c.Images == nil {
		return nil, "", errors.New("options: no directory for the images")
	}
	config, err := configText(c.Extra)
	if err != nil {
		return nil, "", err
	}
	// Below level 3 the log has no times (criu/log.c: print_ts), and nothing but
	// the errors. For a tiny container it costs 0.4 ms of a dump and 1 ms of a
	// restore.
	level := c.logLevel
	switch {
	case level > 0:
	case c.Quiet:
		level = 2
	default:
		level = 3
	}
	r := &rpc.CriuOpts{
		ImagesDirFd:       proto.Int32(int32(c.Images.Fd())),
		LogLevel:          proto.Int32(int32(level)),
		LogFile:           proto.String(c.logFile()),
		NotifyScripts:     proto.Bool(true),
		ManageCgroups:     proto.Bool(false), // for CRIUs that know no modes
		ManageCgroupsMode: rpc.CriuCgMode_IGNORE.Enum(),
		External:          c.External,
		IrmapScanPaths:    c.IrmapScanPaths,
		TcpEstablished:    on(c.TCPEstablished),
		TcpClose:          on(c.TCPClose),
		TcpSkipInFlight:   on(c.SkipInFlight),
		FileLocks:         on(c.FileLocks),
		ShellJob:          on(c.ShellJob),
		ExtUnixSk:         on(c.ExtUnixSockets),
		LinkRemap:         on(c.LinkRemap),
		LazyPages:         on(c.LazyPages),
		OrphanPtsMaster:   on(c.OrphanPTSMaster),
	}
	if c.Work != nil {
		r.WorkDirFd = proto.Int32(int32(c.Work.Fd()))
	}
	if c.NetworkLock != LockDefault {
		r.NetworkLock = rpc.CriuNetworkLockMethod(c.NetworkLock).Enum()
	}
	return r, config, nil
}

func (c *Common) logFile() string {
	if c.LogFile == "" {
		return "criu.log"
	}
	return c.LogFile
}

func (c *Common) workDir() *os.File {
	if c.Work != nil {
		return c.Work
	}
	return c.Images
}

// on leaves a false option out: CRIU then takes its default, and a
// configuration file can still set it.
func on(b bool) *bool {
	if !b {
		return nil
	}
	return &b
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
