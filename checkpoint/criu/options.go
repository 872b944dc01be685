package criu

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Lock says how CRIU keeps packets away from TCP sockets meanwhile. CRIU
// repeats on restore what was done on dump.
type Lock int

// The network locks. LockDefault is what CRIU was built with: iptables,
// unless its builder chose another.
const (
	LockDefault  Lock = 0
	LockIPTables Lock = 1
	LockNFTables Lock = 2
	LockSkip     Lock = 3 // the caller does it
)

// CgroupMode says what CRIU does about cgroups.
type CgroupMode int

// The modes. CgroupIgnore, the zero value, neither saves nor restores any:
// the caller places the restored tasks (see SetupNamespaces).
const (
	CgroupIgnore CgroupMode = iota
	CgroupNone
	CgroupProps
	CgroupSoft
	CgroupFull
	CgroupStrict
)

// InheritFD is a descriptor of the caller's for a restored task: the resource
// that Key names in the images is not opened but taken from here. CRIU must
// have been started with the file in StartOptions.Hold: FD is its number
// there, from HoldFD.
type InheritFD struct {
	Key string // pipe[123], socket[45], tty[...], a path, ...
	FD  int
}

// HoldFD is the number that the nth file of StartOptions.Hold has in CRIU.
func HoldFD(n int) int { return 4 + n }

// JoinNS restores into an existing namespace instead of making a new one.
type JoinNS struct {
	Kind string // net, ipc, uts, ...
	Path string
}

// PageServer is where pages go to on a dump, or, for lazy pages, come from.
type PageServer struct {
	Address string
	Port    int
	FD      int // a connected socket, by its number in CRIU (HoldFD); 0 is none
}

// Common is what a dump and a restore have in common. The zero value of every
// field is CRIU's own default, but for ManageCgroups.
type Common struct {
	Images *os.File // the directory of the images, required
	Work   *os.File // the directory for the log and the statistics; nil is Images

	LogFile  string // a plain name in Work; "" is criu.log
	LogLevel int    // 1 errors, 2 warnings, 3 progress with times, 4 everything; 0 is 2

	External      []string // mnt[/dev]:dev, net[4026531840]:key, unix[99], ...
	NetworkLock   Lock
	ManageCgroups CgroupMode
	CgroupRoots   map[string]string // controller -> path; "" is every controller
	CPUCap        *uint32           // what of the CPU must fit; nil is FPU and instructions
	PageServer    *PageServer

	TCPEstablished   bool // save or restore live connections
	TCPClose         bool // restore them closed
	SkipInFlight     bool // leave out connections nobody has accepted yet
	FileLocks        bool
	ShellJob         bool
	ExtUnixSockets   bool // unix sockets whose peer is outside
	LinkRemap        bool // hard links to deleted files
	EvasiveDevices   bool
	ForceIrmap       bool
	AutoDedup        bool
	LazyPages        bool
	OrphanPTSMaster  bool // one terminal may have its master outside; on restore the new one comes as an event
	SkipFileRWXCheck bool // since 4.2

	IrmapScanPaths []string
	EnableFS       []string
	SkipMounts     []string

	LSMProfile      string
	LSMMountContext string

	// Extra reaches every other option of CRIU, by its long name as on its
	// command line: "ghost-fiemap", "file-validation=filesize". CRIU itself
	// says no to one that it does not know.
	Extra []string

	// KillAfter is how long CRIU may take to give up once the context is
	// cancelled, before it is killed. See the two uses of it.
	KillAfter time.Duration
}

// DumpOptions say what Process.Dump does. Pid and Images are required.
//
// KillAfter 0 is never: a CRIU that is killed in the middle of a dump can
// leave a task broken.
type DumpOptions struct {
	Common
	Pid          int
	LeaveRunning bool
	LeaveStopped bool   // since 4.2
	FreezeCgroup string // a directory; freeze it first, or CRIU polls in steps of 100 ms
	GhostLimit   uint32 // bytes of a deleted file that may go into the image; 0 is 1 MiB
	ParentImages string // an older dump's images, relative to Images
	TrackMem     bool
	PreDumpRead  bool // pre-dump by process_vm_readv instead of splice
	// Timeout is how long CRIU tries to stop all tasks; 0 is 10 s.
	Timeout time.Duration
}

// RestoreOptions say what Process.Restore does. Images is required.
//
// KillAfter 0 is 2 seconds: there is nothing to lose.
type RestoreOptions struct {
	Common
	Root             string // the new root file system, a mount point
	Sibling          bool   // the restored root task is the caller's child, not CRIU's
	InheritFDs       []InheritFD
	JoinNS           []JoinNS
	EmptyNetNS       bool // make a network namespace, leave it empty
	WeakSysctls      bool
	MountsCompatMode bool
}

// Validate finds what CRIU would misunderstand.
func (c *Common) Validate() error {
	switch {
	case c.Images == nil:
		return fmt.Errorf("options: no directory for the images")
	case c.LogLevel < 0 || c.LogLevel > 4:
		return fmt.Errorf("options: log level %d: not from 0 to 4", c.LogLevel)
	case c.NetworkLock < LockDefault || c.NetworkLock > LockSkip:
		return fmt.Errorf("options: network lock %d: unknown", c.NetworkLock)
	case c.ManageCgroups < CgroupIgnore || c.ManageCgroups > CgroupStrict:
		return fmt.Errorf("options: cgroup mode %d: unknown", c.ManageCgroups)
	}
	return nil
}

// Validate finds what CRIU would misunderstand.
func (o *DumpOptions) Validate() error {
	if o.Pid <= 0 {
		return fmt.Errorf("options: pid %d: not a process", o.Pid) // 0 would dump CRIU's client: us
	}
	if o.LeaveRunning && o.LeaveStopped {
		return fmt.Errorf("options: tasks cannot be left running and stopped")
	}
	return o.Common.Validate()
}

// request translates the options into CRIU's message, and into the text of
// the configuration file for those that the message has no field for.
func (o *DumpOptions) request() (*rpc.CriuOpts, string, error) {
	if err := o.Validate(); err != nil {
		return nil, "", err
	}
	r := o.Common.request()
	r.Pid = proto.Int32(int32(o.Pid))
	r.LeaveRunning = on(o.LeaveRunning)
	r.TrackMem = on(o.TrackMem)
	r.FreezeCgroup = text(o.FreezeCgroup)
	r.ParentImg = text(o.ParentImages)
	if o.GhostLimit > 0 {
		r.GhostLimit = &o.GhostLimit
	}
	if o.Timeout > 0 { // whole seconds, and 0 would be "at once": round up
		r.Timeout = proto.Uint32(uint32((o.Timeout + time.Second - 1) / time.Second))
	}
	if o.PreDumpRead {
		r.PreDumpMode = rpc.CriuPreDumpMode_VM_READ.Enum()
	}
	if o.LeaveStopped {
		setUnknownBool(r, fieldLeaveStopped)
	}
	config, err := configText(o.Extra)
	return r, config, err
}

func (o *RestoreOptions) request() (*rpc.CriuOpts, string, error) {
	if err := o.Validate(); err != nil {
		return nil, "", err
	}
	r := o.Common.request()
	r.Root = text(o.Root)
	r.RstSibling = on(o.Sibling)
	r.WeakSysctls = on(o.WeakSysctls)
	r.MntnsCompatMode = on(o.MountsCompatMode)
	if o.EmptyNetNS {
		r.EmptyNs = proto.Uint32(0x40000000) // CLONE_NEWNET, the only one CRIU takes
	}
	for _, in := range o.InheritFDs {
		r.InheritFd = append(r.InheritFd, &rpc.InheritFd{Key: proto.String(in.Key), Fd: proto.Int32(int32(in.FD))})
	}
	for _, ns := range o.JoinNS {
		r.JoinNs = append(r.JoinNs, &rpc.JoinNamespace{Ns: proto.String(ns.Kind), NsFile: proto.String(ns.Path)})
	}
	config, err := configText(o.Extra)
	return r, config, err
}

func (c *Common) request() *rpc.CriuOpts {
	level := c.LogLevel
	if level == 0 {
		level = 2
	}
	r := &rpc.CriuOpts{
		ImagesDirFd:       proto.Int32(int32(c.Images.Fd())),
		LogLevel:          proto.Int32(int32(level)),
		LogFile:           proto.String(c.logFile()),
		NotifyScripts:     proto.Bool(true),
		ManageCgroups:     proto.Bool(c.ManageCgroups != CgroupIgnore), // for CRIUs that know no modes
		ManageCgroupsMode: rpc.CriuCgMode(c.ManageCgroups).Enum(),
		External:          c.External,
		CpuCap:            c.CPUCap,
		IrmapScanPaths:    c.IrmapScanPaths,
		EnableFs:          c.EnableFS,
		SkipMnt:           c.SkipMounts,
		TcpEstablished:    on(c.TCPEstablished),
		TcpClose:          on(c.TCPClose),
		TcpSkipInFlight:   on(c.SkipInFlight),
		FileLocks:         on(c.FileLocks),
		ShellJob:          on(c.ShellJob),
		ExtUnixSk:         on(c.ExtUnixSockets),
		LinkRemap:         on(c.LinkRemap),
		EvasiveDevices:    on(c.EvasiveDevices),
		ForceIrmap:        on(c.ForceIrmap),
		AutoDedup:         on(c.AutoDedup),
		LazyPages:         on(c.LazyPages),
		OrphanPtsMaster:   on(c.OrphanPTSMaster),
		LsmProfile:        text(c.LSMProfile),
		LsmMountContext:   text(c.LSMMountContext),
	}
	if c.Work != nil {
		r.WorkDirFd = proto.Int32(int32(c.Work.Fd()))
	}
	if c.NetworkLock != LockDefault {
		r.NetworkLock = rpc.CriuNetworkLockMethod(c.NetworkLock).Enum()
	}
	for _, controller := range slices.Sorted(maps.Keys(c.CgroupRoots)) {
		path := c.CgroupRoots[controller]
		r.CgRoot = append(r.CgRoot, &rpc.CgroupRoot{Ctrl: text(controller), Path: &path})
	}
	if ps := c.PageServer; ps != nil {
		r.Ps = &rpc.CriuPageServerInfo{Address: text(ps.Address), Port: proto.Int32(int32(ps.Port))}
		if ps.FD > 0 {
			r.Ps.Fd = proto.Int32(int32(ps.FD))
		}
	}
	if c.SkipFileRWXCheck {
		setUnknownBool(r, fieldSkipFileRWXCheck)
	}
	return r
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

// Fields of criu_opts that are newer than our schema of it
// (images/rpc.proto of CRIU 4.2). An older CRIU ignores them.
const (
	fieldSkipFileRWXCheck = 66
	fieldLeaveStopped     = 69
)

// setUnknownBool sets a field that the schema lacks: it goes over the wire
// as any other does.
func setUnknownBool(r *rpc.CriuOpts, field protowire.Number) {
	raw := r.ProtoReflect().GetUnknown()
	raw = protowire.AppendTag(raw, field, protowire.VarintType)
	raw = protowire.AppendVarint(raw, 1)
	r.ProtoReflect().SetUnknown(raw)
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
