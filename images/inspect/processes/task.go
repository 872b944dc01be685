package processes

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"crucible/proto/imagepb"
)

// core is core_entry: of a process's first thread, or of another one, which has
// no task.
type core struct {
	Task   *task   `criu:"tc"`
	Thread *thread `criu:"thread_core"`
}

type task struct {
	ExitCode    uint32       `criu:"exit_code"`
	Personality uint32       `criu:"personality"`
	Blocked     uint64       `criu:"blk_sigset"`
	Comm        string       `criu:"comm"`
	Timers      *timers      `criu:"timers"`
	Limits      *limits      `criu:"rlimits"`
	Cgroups     uint32       `criu:"cg_set"`
	Pending     *signalQueue `criu:"signals_s"`
	Seccomp     uint32       `criu:"old_seccomp_mode"`
	LoginUID    uint32       `criu:"loginuid"`
	OOMScoreAdj int32        `criu:"oom_score_adj"`
	Actions     []action     `criu:"sigactions"`
	Subreaper   bool         `criu:"child_subreaper"`
	StopSignal  uint32       `criu:"stop_signo"`
	Membarrier  uint32       `criu:"membarrier_registration_mask"`
}

type thread struct {
	RobustList      uint64       `criu:"futex_rla"`
	RobustListBytes uint32       `criu:"futex_rla_len"`
	Nice            int32        `criu:"sched_nice"`
	Policy          uint32       `criu:"sched_policy"`
	Priority        uint32       `criu:"sched_prio"`
	Blocked         *uint64      `criu:"blk_sigset"`
	AltStack        *altStack    `criu:"sas"`
	ParentDeath     uint32       `criu:"pdeath_sig"`
	Pending         *signalQueue `criu:"signals_p"`
	Creds           *creds       `criu:"creds"`
	Seccomp         *uint32      `criu:"seccomp_mode"`
	Filter          uint32       `criu:"seccomp_filter"`
	Comm            string       `criu:"comm"`
	Rseq            *struct {
		Address uint64 `criu:"rseq_abi_pointer"`
	} `criu:"rseq_entry"`
	Cgroups uint32 `criu:"cg_set"`
	Slack   uint64 `criu:"timerslack_ns"`
}

type altStack struct {
	Address uint64 `criu:"ss_sp"`
	Size    uint64 `criu:"ss_size"`
	Flags   uint32 `criu:"ss_flags"`
}

type limits struct {
	All []struct {
		Soft uint64 `criu:"cur"`
		Hard uint64 `criu:"max"`
	} `criu:"rlimits"`
}

type signalQueue struct {
	Signals []struct {
		Info []byte `criu:"siginfo"`
	} `criu:"signals"`
}

type action struct {
	Handler  uint64 `criu:"sigaction"`
	Flags    uint64 `criu:"flags"`
	Restorer uint64 `criu:"restorer"`
	Mask     uint64 `criu:"mask"`
}

type timers struct {
	Real  interval     `criu:"real"`
	Virt  interval     `criu:"virt"`
	Prof  interval     `criu:"prof"`
	Posix []posixTimer `criu:"posix"`
}

type interval struct {
	IntervalSec  uint64 `criu:"isec"`
	IntervalUsec uint64 `criu:"iusec"`
	ValueSec     uint64 `criu:"vsec"`
	ValueUsec    uint64 `criu:"vusec"`
}

type posixTimer struct {
	ID           uint32 `criu:"it_id"`
	Clock        uint32 `criu:"clock_id"`
	Signal       uint32 `criu:"si_signo"`
	Notify       uint32 `criu:"it_sigev_notify"`
	Value        uint64 `criu:"sival_ptr"`
	Overrun      uint32 `criu:"overrun"`
	IntervalSec  uint64 `criu:"isec"`
	IntervalNsec uint64 `criu:"insec"`
	ValueSec     uint64 `criu:"vsec"`
	ValueNsec    uint64 `criu:"vnsec"`
	Thread       int32  `criu:"notify_thread_id"`
}

type creds struct {
	UID         uint32   `criu:"uid"`
	GID         uint32   `criu:"gid"`
	EUID        uint32   `criu:"euid"`
	EGID        uint32   `criu:"egid"`
	SUID        uint32   `criu:"suid"`
	SGID        uint32   `criu:"sgid"`
	FSUID       uint32   `criu:"fsuid"`
	FSGID       uint32   `criu:"fsgid"`
	Inheritable []uint32 `criu:"cap_inh"`
	Permitted   []uint32 `criu:"cap_prm"`
	Effective   []uint32 `criu:"cap_eff"`
	Bounding    []uint32 `criu:"cap_bnd"`
	Ambient     []uint32 `criu:"cap_amb"`
	Securebits  uint32   `criu:"secbits"`
	Groups      []uint32 `criu:"groups"`
	LSM         string   `criu:"lsm_profile"`
	NoNewPrivs  uint32   `criu:"no_new_privs"`
}

// core reads the threads of a process, of which the first says what belongs to it
// as a whole.
func (r reader) core(p *imagepb.Process, threads []uint32) error {
	p.Tasks, p.Limits, p.Actions, p.PendingSignals, p.IntervalTimers, p.PosixTimers = nil, nil, nil, nil, nil, nil
	// The first thread has the process's number; of a zombie CRIU writes no good one
	// (criu/cr-dump.c, dump_zombies).
	threads = append([]uint32{uint32(p.Pid)}, threads[min(1, len(threads)):]...)
	for n, tid := range threads {
		all, err := load[core](r, "core-%d.img", tid)
		if err != nil {
			return err
		}
		if len(all) != 1 {
			return fmt.Errorf("core-%d.img has %d entries", tid, len(all))
		}
		c := all[0]
		if n == 0 && c.Task != nil {
			r.task(p, c.Task)
		}
		if c.Thread == nil {
			continue // of a zombie
		}
		t := c.Thread.proto(int32(tid))
		if c.Task != nil {
			if c.Thread.Blocked == nil {
				t.Blocked = c.Task.Blocked // before CRIU 1.3
			}
			if t.Comm == "" {
				t.Comm = imagepb.Text(c.Task.Comm)
			}
			if c.Thread.Seccomp == nil {
				t.Seccomp = c.Task.Seccomp
			}
		}
		credentials := c.Thread.Creds.proto()
		switch {
		case n == 0:
			p.Credentials = credentials
			p.Cgroups = r.cgroups[max(c.Thread.Cgroups, c.Task.cgroups())]
			path, v2 := p.Cgroups[""]
			if p.Cgroup = path; !v2 {
				p.Cgroup = p.Cgroups["freezer"]
			}
		case !proto.Equal(credentials, p.Credentials):
			t.Credentials = credentials
		}
		p.Tasks = append(p.Tasks, t)
	}
	return nil
}

func (t *task) cgroups() uint32 {
	if t == nil {
		return 0
	}
	return t.Cgroups
}

func (r reader) task(p *imagepb.Process, t *task) {
	p.OomScoreAdj, p.LoginUid, p.Personality, p.ChildSubreaper = t.OOMScoreAdj, t.LoginUID, t.Personality, t.Subreaper
	p.StopSignal, p.Membarrier, p.ExitCode = t.StopSignal, t.Membarrier, t.ExitCode
	p.PendingSignals = t.Pending.numbers()
	if t.Limits != nil {
		for n, l := range t.Limits.All {
			p.Limits = append(p.Limits, &imagepb.Limit{Resource: resource(n), Soft: l.Soft, Hard: l.Hard})
		}
	}
	// One for each signal but SIGKILL and SIGSTOP (criu/cr-dump.c, dump_sigacts).
	signal := uint32(0)
	for _, a := range t.Actions {
		signal++
		for signal == 9 || signal == 19 {
			signal++
		}
		if a.Handler != 0 || a.Flags != 0 || a.Mask != 0 {
			p.Actions = append(p.Actions, &imagepb.SignalAction{Signal: signal, Handler: a.Handler, Flags: a.Flags, Restorer: a.Restorer, Mask: a.Mask})
		}
	}
	if t.Timers == nil {
		return
	}
	for _, i := range []struct {
		which string
		timer interval
	}{{"real", t.Timers.Real}, {"virtual", t.Timers.Virt}, {"prof", t.Timers.Prof}} {
		value, every := i.timer.ValueSec*1e6+i.timer.ValueUsec, i.timer.IntervalSec*1e6+i.timer.IntervalUsec
		if value != 0 || every != 0 {
			p.IntervalTimers = append(p.IntervalTimers, &imagepb.IntervalTimer{Which: i.which, ValueUs: value, IntervalUs: every})
		}
	}
	for _, o := range t.Timers.Posix {
		p.PosixTimers = append(p.PosixTimers, &imagepb.PosixTimer{
			Id: o.ID, Clock: o.Clock, Notify: o.Notify, Signal: o.Signal, SignalValue: o.Value, Thread: o.Thread, Overrun: uint64(o.Overrun),
			ValueNs: o.ValueSec*1e9 + o.ValueNsec, IntervalNs: o.IntervalSec*1e9 + o.IntervalNsec,
		})
	}
}

func (t *thread) proto(tid int32) *imagepb.Thread {
	out := &imagepb.Thread{
		Tid: tid, Comm: imagepb.Text(t.Comm), Policy: t.Policy, Nice: t.Nice, Priority: t.Priority, PendingSignals: t.Pending.numbers(),
		ParentDeathSignal: t.ParentDeath, TimerSlackNs: t.Slack, SeccompFilter: t.Filter, RobustList: t.RobustList, RobustListBytes: t.RobustListBytes,
	}
	if t.Blocked != nil {
		out.Blocked = *t.Blocked
	}
	if t.Seccomp != nil {
		out.Seccomp = *t.Seccomp
	}
	if s := t.AltStack; s != nil {
		out.Altstack, out.AltstackBytes, out.AltstackFlags = s.Address, s.Size, s.Flags
	}
	if t.Rseq != nil {
		out.Rseq = t.Rseq.Address
	}
	return out
}

// numbers of the signals: si_signo comes first in a siginfo_t (sigaction(2)).
func (q *signalQueue) numbers() (all []uint32) {
	if q == nil {
		return nil
	}
	for _, s := range q.Signals {
		if len(s.Info) >= 4 {
			all = append(all, binary.NativeEndian.Uint32(s.Info))
		}
	}
	return all
}

func (c *creds) proto() *imagepb.Credentials {
	if c == nil {
		return nil
	}
	return &imagepb.Credentials{
		Uids:   &imagepb.IDs{Real: c.UID, Effective: c.EUID, Saved: c.SUID, Filesystem: c.FSUID},
		Gids:   &imagepb.IDs{Real: c.GID, Effective: c.EGID, Saved: c.SGID, Filesystem: c.FSGID},
		Groups: c.Groups, Inheritable: set(c.Inheritable), Permitted: set(c.Permitted), Effective: set(c.Effective),
		Bounding: set(c.Bounding), Ambient: set(c.Ambient), Securebits: c.Securebits, NoNewPrivs: c.NoNewPrivs != 0, LsmProfile: imagepb.Text(c.LSM),
	}
}

// set is a set of capabilities, of words of 32.
func set(words []uint32) (s uint64) {
	for n, w := range words {
		if n < 2 {
			s |= uint64(w) << (32 * n)
		}
	}
	return s
}

// resource names a RLIMIT_* (asm-generic/resource.h).
func resource(n int) string {
	names := [...]string{
		"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile",
		"memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
	}
	if n < len(names) {
		return names[n]
	}
	return fmt.Sprint(n)
}
