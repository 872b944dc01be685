package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// StartOptions say how one `criu swrk` is started. The zero value will do.
type StartOptions struct {
	// NetNS is the network namespace in which CRIU is to run. To CRIU it is
	// then its own: it saves and rebuilds no network, and runs no ip or
	// iptables. It needs no mount of /proc but the caller's.
	NetNS *os.File
	// Hold are descriptors that CRIU keeps open for as long as it lives. The
	// other end of a pipe or socket among them reads end-of-file when both the
	// caller and CRIU are gone: the moment from which on nobody freezes or
	// thaws the tasks any more (see "If the caller dies" in doc.go).
	Hold []*os.File
	// Cgroup is a directory of cgroup v2 in which CRIU is to be born, and so all
	// that it restores (clone3(2), CLONE_INTO_CGROUP).
	Cgroup *os.File
}

// Process is one running `criu swrk`, which serves one request. Its methods
// are for one goroutine at a time, but for Kill.
type Process struct {
	criu    *CRIU
	proc    *os.Process
	sock    int      // our end of the connection
	pidfd   int      // readable when CRIU has ended
	stderr  *os.File // a memfd: what CRIU says before it has opened its log
	version *Version
	log     *Common // where the request under way has its log
	marks   []Mark
	wait    sync.Once
	state   *os.ProcessState

	mu        sync.Mutex // for what follows: Kill comes from anywhere
	ended     bool       // it has been waited for
	restoring bool       // it is making a child of ours
	root      int        // which one, if Kill saw it
}

func (p *Process) setRestoring(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restoring = yes
}

// Start starts `criu swrk`, which waits for a request. It forks from the
// calling thread, so that a caller who has locked its goroutine to a thread
// with namespaces of its own (runtime.LockOSThread) finds CRIU in the same
// ones. The caller must Close what it gets.
//
// CRIU is not killed when the caller dies (no PR_SET_PDEATHSIG): its own
// way out is the better one, see doc.go.
func (c *CRIU) Start(ctx context.Context, o StartOptions) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	if err := c.ensureRunDir(); err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	defer unix.Close(theirs)
	stderr, err := memfd("criu-stderr")
	if err != nil {
		unix.Close(ours)
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	p := &Process{criu: c, sock: ours, pidfd: -1, stderr: stderr}
	if err := p.start(theirs, o); err != nil {
		unix.Close(ours)
		stderr.Close()
		return nil, err
	}
	return p, nil
}

func (p *Process) start(theirs int, o StartOptions) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.criu.Path, err)
	}
	defer null.Close()
	// A second owner of the descriptor, because os.File closes what it owns.
	dup, err := unix.FcntlInt(uintptr(theirs), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("start %s: dup: %w", p.criu.Path, err)
	}
	sock := os.NewFile(uintptr(dup), "swrk")
	defer sock.Close()

	attr := &os.ProcAttr{
		Env:   environment(),
		Files: append([]*os.File{null, null, p.stderr, sock}, o.Hold...),
		Sys: &syscall.SysProcAttr{
			// A terminal's Ctrl-C is for us: CRIU in the middle of a dump must
			// not be hit by it. The group is also what Kill kills.
			Setpgid: true,
			PidFD:   &p.pidfd,
		},
	}
	if o.Cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(o.Cgroup.Fd())
	}
	argv := []string{p.criu.Path, "--no-default-config", "swrk", strconv.Itoa(3)}
	err = inNetNS(o.NetNS, func() (err error) {
		p.proc, err = os.StartProcess(p.criu.Path, argv, attr)
		return err
	})
	if p.proc == nil {
		return startError(p.criu.Path, err)
	}
	if err != nil { // it runs, but the thread could not go back
		p.Kill()
		p.reap()
		return err
	}
	return nil
}

func startError(path string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return &NotFound{Tried: []string{path}, Err: err}
	}
	return &NotWorking{Path: path, Err: err}
}

// environment is what CRIU and the programs that it executes (ip, iptables,
// tar) need, and nothing else: an LD_LIBRARY_PATH or a CRIU_CONFIG_FILE of
// the caller's would change the outcome unseen.
func environment() []string {
	path := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if own := os.Getenv("PATH"); own != "" {
		path += ":" + own
	}
	return []string{path}
}

// inNetNS runs f on this very thread, inside ns. A thread's namespaces are
// what a process forked from it gets; nothing else on the thread may run
// meanwhile, so the goroutine is locked to it.
func inNetNS(ns *os.File, f func() error) error {
	runtime.LockOSThread()
	if ns == nil {
		defer runtime.UnlockOSThread()
		return f()
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the thread's network namespace: %w", err)
	}
	defer own.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)
	}
	result := f()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		// Never unlocked: the runtime ends a thread whose goroutine ends while
		// locked, so that no other goroutine ever runs in the wrong network.
		return errors.Join(result, fmt.Errorf("leave network namespace %s: %w", ns.Name(), err))
	}
	runtime.UnlockOSThread()
	return result
}

func memfd(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Pid is CRIU's process id.
func (p *Process) Pid() int { return p.proc.Pid }

// Kill kills CRIU at once, with every helper and every task it is just
// restoring (they are all of its process group until they get a session of
// their own). During a dump this can ruin the tasks being dumped: see
// "Killing CRIU" in doc.go, and cancel the context of the request instead.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return // its number may be another's by now
	}
	if p.restoring && p.root == 0 {
		p.root = p.findRoot() // seen best while CRIU lives
	}
	_ = unix.Kill(-p.proc.Pid, unix.SIGKILL)
	_ = p.proc.Kill()
}

// Close closes the connection and waits for CRIU's end. After a request was
// answered, or before one was made, CRIU ends by itself at once.
func (p *Process) Close() error {
	if p.sock >= 0 {
		unix.Close(p.sock)
		p.sock = -1
	}
	p.reap()
	p.stderr.Close()
	return nil
}

// reap waits for CRIU. Somebody else in this process may wait for every
// child (a monitor that collects its container's orphans does); then there
// is no status, and no error either.
func (p *Process) reap() {
	p.wait.Do(func() {
		// First without taking it: until it is taken, its number is its own.
		for unix.Waitid(unix.P_PID, p.proc.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended = true
		var err error
		if p.state, err = p.proc.Wait(); err != nil {
			_ = p.proc.Release() // which a Wait that fails does not do
		}
		if p.pidfd >= 0 {
			unix.Close(p.pidfd)
			p.pidfd = -1
		}
	})
}

// said is what CRIU wrote to its standard error.
func said(stderr *os.File) string {
	buf := make([]byte, 64<<10)
	n, _ := stderr.ReadAt(buf, 0)
	return string(buf[:n])
}
