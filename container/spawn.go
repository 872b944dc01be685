package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// Names under which crucible executes itself (argument 0).
const (
	monitorName = "crucible-monitor" // NAME ROOT KIND, and the report socket on descriptor 3
	serveName   = "crucible-serve"   // NAME ROOT, and what it holds in serveEnv
	holdName    = "crucible-hold"    // only there for its namespaces, until its input ends
)

// serveEnv describes the descriptors that a monitor keeps over its second execve.
const serveEnv = "CRUCIBLE_SERVE"

// reportSocket is the descriptor on which a detached monitor gets its job and
// tells how it went.
const reportSocket = 3

// Job brings a container up in the monitor m, from what the command sent.
// What it returns is sent back to the command. On an error the monitor aborts.
type Job func(ctx context.Context, m *Monitor, args json.RawMessage) (any, error)

// startArgs are the arguments of the job "start".
type startArgs struct {
	Wait  bool `json:"wait"`  // stop short of the program: create
	Input bool `json:"input"` // keep standard input open
}

// report is the monitor's answer to the command that spawned it.
type report struct {
	Error  *RemoteError    `json:"error,omitempty"`
	Init   *InitError      `json:"init,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// RemoteError is an error that happened in the monitor. Its type is lost on the
// way, so what it means to the user comes with it.
type RemoteError struct {
	Text string `json:"text"`
	Explanation
}

func (e *RemoteError) Error() string { return e.Text }

// Explanation is what a command tells of an error besides its text.
type Explanation struct {
	Hint   string `json:"hint,omitempty"`
	Object string `json:"object,omitempty"` // what it is about, such as a process and its descriptor
	Log    string `json:"log,omitempty"`
	Code   int    `json:"code,omitempty"` // the command's exit status
}

// MaybeMonitor becomes a detached monitor if this process was started as one,
// and then never returns. It comes right after MaybeInit. jobs are the ways to
// bring a container up besides "start", by their kinds; explain says what an
// error means.
func MaybeMonitor(jobs map[string]Job, explain func(error) Explanation) {
	switch {
	case len(os.Args) > 0 && os.Args[0] == holdName:
		os.Exit(hold(os.Args[1:]))
	case len(os.Args) == 3 && os.Args[0] == serveName:
		os.Exit(serveAgain(os.Args[1], Root(os.Args[2])))
	case len(os.Args) == 4 && os.Args[0] == monitorName:
		job := jobs[os.Args[3]]
		if os.Args[3] == "start" {
			job = startJob
		}
		os.Exit(monitorMain(os.Args[1], Root(os.Args[2]), job, explain))
	}
}

// hold keeps namespaces for whoever started it, until its input ends: those it
// was born in, and with the argument "cgroup" a cgroup namespace that it makes.
// Then it says on which of its threads that is.
func hold(args []string) int {
	if len(args) > 0 {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return 1
		}
		fmt.Println(unix.Gettid())
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

func startJob(ctx context.Context, m *Monitor, args json.RawMessage) (any, error) {
	var a startArgs
	if err := json.Unmarshal(args, &a); err != nil {
		return nil, err
	}
	m.output.Input = a.Input
	return nil, m.Start(ctx, a.Wait)
}

func monitorMain(name string, root Root, job Job, explain func(error) Explanation) int {
	unix.CloseOnExec(reportSocket)
	socket := os.NewFile(reportSocket, "report")
	conn, err := net.FileConn(socket)
	socket.Close()
	if err != nil {
		return 1
	}
	var args json.RawMessage
	if err := json.NewDecoder(conn).Decode(&args); err != nil {
		return 1
	}
	// The command hangs up when it is interrupted.
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	m, result, err := bringUp(ctx, name, root, os.Args[3], job, args)
	answer := report{}
	if err != nil {
		answer.Error = &RemoteError{Text: err.Error(), Explanation: explain(err)}
		errors.As(err, &answer.Init)
	} else if result != nil {
		answer.Result, _ = json.Marshal(result)
	}
	_ = json.NewEncoder(conn).Encode(answer)
	if err != nil {
		return 1
	}
	if err := m.serveSlim(); err != nil {
		fmt.Fprintln(os.Stderr, "monitor: stays as large as it is:", err)
	}
	if _, err := m.Serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "monitor:", err)
		return 1
	}
	return 0
}

func bringUp(ctx context.Context, name string, root Root, kind string, job Job, args json.RawMessage) (*Monitor, any, error) {
	c, err := root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	m, err := NewMonitor(c, Output{})
	if err != nil {
		return nil, nil, err
	}
	if err := m.claim(kind); err != nil {
		return nil, nil, err
	}
	result, err := job(ctx, m, args)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		m.Abort()
		return nil, nil, err
	}
	return m, result, nil
}

// Spawn starts a detached monitor that does a job, and waits until the
// container is up. When ctx is cancelled before, nothing of it stays.
func (c *Container) Spawn(ctx context.Context, kind string, args, result any) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "report"), os.NewFile(uintptr(fds[1]), "report")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return err
	}
	defer conn.Close()
	stderr, err := os.OpenFile(c.path("monitor.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		theirs.Close()
		return err
	}
	defer stderr.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{monitorName, c.Name, string(c.Root), kind}, Dir: "/",
		Stderr: stderr, ExtraFiles: []*os.File{theirs}, Env: os.Environ(),
		SysProcAttr: &unix.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start the monitor of container %s: %w", c.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.(*net.UnixConn).CloseWrite() })
	defer stop()
	err = hearReport(ctx, c.Name, conn, args, result)
	var gone *MonitorError
	if errors.As(err, &gone) { // or about to be: whoever cleans up must find it dead
		_, _ = cmd.Process.Wait()
		return err
	}
	// A command ends long before it; who lives on, and starts others, must not
	// gather zombies.
	go func() { _, _ = cmd.Process.Wait() }()
	return err
}

func hearReport(ctx context.Context, name string, conn net.Conn, args, result any) error {
	if err := json.NewEncoder(conn).Encode(args); err != nil {
		return &MonitorError{Name: name, Err: err}
	}
	var answer report
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return errors.Join(&MonitorError{Name: name, Err: err}, ctx.Err())
	}
	switch {
	case answer.Init != nil:
		return errors.Join(&StartError{Name: name, Err: answer.Init}, ctx.Err())
	case answer.Error != nil:
		return errors.Join(answer.Error, ctx.Err())
	case result != nil && answer.Result != nil:
		return json.Unmarshal(answer.Result, result)
	}
	return nil
}

// kept are the descriptors that go with a monitor over its second execve.
type kept struct {
	Pid      int    `json:"pid"`
	Input    int    `json:"input"`
	Outputs  []int  `json:"outputs"`
	Keepers  []int  `json:"keepers"`
	Master   int    `json:"master"`
	Listener int    `json:"listener"`
	HostNet  int    `json:"hostNet"`
	Socket   int    `json:"socket"`
	Loader   int    `json:"loader"` // a pid
	Loading  string `json:"loading"`
}

// serveSlim executes crucible once more, in the same process and so still the
// container's parent: what the bringing up has put into memory is gone.
func (m *Monitor) serveSlim() error {
	listener, err := m.control.listener.File()
	if err != nil {
		return err
	}
	keep := func(f *os.File) int {
		if f == nil {
			return -1
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 3) // the copy survives the execve
		if err != nil {
			return -1
		}
		return fd
	}
	k := kept{Pid: m.pid, Loader: m.loader, Loading: m.loading, Input: keep(m.stdio.input), Master: keep(m.stdio.master), Listener: keep(listener), HostNet: keep(m.hostNet), Socket: -1}
	for _, f := range m.stdio.outputs {
		k.Outputs = append(k.Outputs, keep(f))
	}
	for _, f := range m.stdio.keepers {
		k.Keepers = append(k.Keepers, keep(f))
	}
	if m.c.State.Recorded == Created {
		k.Socket, _ = unix.FcntlInt(uintptr(m.socket), unix.F_DUPFD, 3)
	}
	env, err := json.Marshal(k)
	if err != nil {
		return err
	}
	m.leaveNetwork()
	return unix.Exec("/proc/self/exe", []string{serveName, m.c.Name, string(m.c.Root)},
		append(os.Environ(), serveEnv+"="+string(env), "GOMAXPROCS=1", "GOGC=20"))
}

func serveAgain(name string, root Root) int {
	var k kept
	if err := json.Unmarshal([]byte(os.Getenv(serveEnv)), &k); err != nil {
		fmt.Fprintln(os.Stderr, "monitor:", err)
		return 1
	}
	take := func(fd int) *os.File {
		if fd < 0 {
			return nil
		}
		unix.CloseOnExec(fd)
		_ = unix.SetNonblock(fd, true)
		return os.NewFile(uintptr(fd), "kept "+strconv.Itoa(fd))
	}
	c, err := root.Open(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, "monitor:", err)
		return 1
	}
	m := &Monitor{c: c, pid: k.Pid, loader: k.Loader, loading: k.Loading, socket: -1, detached: true, stdio: newStdio(c.Log())}
	m.stdio.input, m.stdio.master = take(k.Input), take(k.Master)
	for _, fd := range k.Outputs {
		m.stdio.outputs = append(m.stdio.outputs, take(fd))
	}
	for _, fd := range k.Keepers {
		m.stdio.keepers = append(m.stdio.keepers, take(fd))
	}
	m.hostNet = take(k.HostNet)
	if k.Socket >= 0 {
		m.socket = k.Socket
		unix.CloseOnExec(k.Socket)
	}
	if err := m.resume(take(k.Listener)); err != nil {
		fmt.Fprintln(os.Stderr, "monitor:", err)
		return 1
	}
	_ = c.dropOldLayer()
	debug.FreeOSMemory()
	if _, err := m.Serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "monitor:", err)
		return 1
	}
	return 0
}

// resume takes up again what a monitor was before its second execve.
func (m *Monitor) resume(listener *os.File) error {
	l, err := net.FileListener(listener)
	listener.Close()
	if err != nil {
		return err
	}
	m.control = newControl(l.(*net.UnixListener))
	m.group, err = m.c.Group()
	return err
}
