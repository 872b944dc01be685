package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
	"crucible/container/confine"
	"crucible/container/confine/seccomp"
	"crucible/container/fork"
)

// ExecOptions say what Exec runs. Args is required.
type ExecOptions struct {
	Args     []string
	Env      []string // KEY=VALUE, besides the container's own
	Cwd      string   // default: the container's
	User     string   // UID[:GID], default: the container's
	Terminal bool
}

// Exec is a program that was started in a running container. It is our child,
// and no part of the container's process tree: a checkpoint refuses as long as
// it runs.
type Exec struct {
	Pid    int
	master *os.File   // terminal
	stdin  *os.File   // pipe to the program; nil with a terminal
	output []*os.File // pipes from the program: stdout, stderr
}

// Exec starts a program in the container's namespaces and cgroup, confined as
// the container's own. A program that cannot be started is an *InitError.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Exec, error) {
	if _, err := c.Require("execute a program in", Running); err != nil {
		return nil, err
	}
	x, err := c.exec(ctx, o)
	var failure *InitError
	if errors.As(err, &failure) { // it says "execute"
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("execute %s in container %s: %w", o.Args[0], c.Name, err)
	}
	return x, nil
}

func (c *Container) exec(ctx context.Context, o ExecOptions) (*Exec, error) {
	spec, err := c.Spec()
	if err != nil {
		return nil, err
	}
	g, err := c.Group()
	if err != nil {
		return nil, err
	}
	early, tasks, err := splitTasks(spec, g)
	if err != nil {
		return nil, err
	}
	defer tasks.Close() // of nil, too
	config, err := execConfig(spec, o, tasks != nil)
	if err != nil {
		return nil, err
	}
	needs, err := config.needs()
	if err != nil {
		return nil, err
	}
	message, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	x := &Exec{}
	files, err := x.pipes(o.Terminal)
	defer closeAll(append(files, theirs))
	if err != nil {
		return nil, err
	}
	if err := c.enter(ctx, early, x, needs, append(files, theirs)); err != nil {
		x.Close()
		return nil, whyNotStarted(err, c.Name, spec, g)
	}
	closeAll(append(files, theirs))
	stop := context.AfterFunc(ctx, func() { _ = unix.Shutdown(int(ours.Fd()), unix.SHUT_RDWR) })
	defer stop()
	socket := int(ours.Fd())
	if err = sendConfig(socket, x.Pid, message, tasks); err == nil {
		x.master, err = hearInit(socket, x.Pid, false)
	}
	if err != nil {
		_, _ = x.Wait()
		x.Close()
		return nil, errors.Join(whyNotStarted(err, c.Name, spec, g), ctx.Err())
	}
	return x, nil
}

// enter starts the sealed crucible in the container's namespaces, to become
// the program.
func (c *Container) enter(ctx context.Context, g *cgroup.Group, x *Exec, needs uint64, files []*os.File) error {
	exe, err := confine.SealedSelf()
	if err != nil {
		return err
	}
	defer exe.Close()
	return g.Start(func(v2 *os.File) (_ int, err error) {
		x.Pid, err = fork.Into(ctx, fork.Options{
			Target: c.State.Init.Pid, Exe: exe, Args: []string{initName}, Env: []string{"GOMAXPROCS=1", "GOGC=off"}, Capabilities: needs, Files: files, Cgroup: v2,
		})
		return x.Pid, err
	})
}

// needs are the capabilities for a program that exec starts. The process that
// becomes it is seen in the container, and one with CAP_SYS_PTRACE may do with
// it as it likes: it has nothing that it can do without.
func (c *initConfig) needs() (uint64, error) {
	p := c.Process
	id := confine.Identity{Capabilities: p.Capabilities, NoNewPrivileges: p.NoNewPrivileges, Filter: c.Seccomp}
	needs, err := id.Needs()
	needs |= 1 << unix.CAP_DAC_OVERRIDE // the working directory is entered as root
	if p.Terminal {
		needs |= 1 << unix.CAP_CHOWN
	}
	if len(p.Rlimits) > 0 {
		needs |= 1 << unix.CAP_SYS_RESOURCE
	}
	return needs, err
}

func execConfig(spec *specs.Spec, o ExecOptions, tasks bool) (_ *initConfig, err error) {
	p := *spec.Process
	p.Args, p.Env, p.Terminal, p.OOMScoreAdj = o.Args, mergeEnv(p.Env, o.Env), o.Terminal, nil
	if o.Cwd != "" {
		p.Cwd = o.Cwd
	}
	if o.User != "" {
		with := &specs.Spec{Process: &p}
		if err := setUser(with, RunOptions{User: o.User}); err != nil {
			return nil, &OptionError{err}
		}
		p.Capabilities = spec.Process.Capabilities
		if p.User.UID != 0 && p.Capabilities != nil {
			p.Capabilities = &specs.LinuxCapabilities{Bounding: p.Capabilities.Bounding}
		}
	}
	config := &initConfig{Process: &p, Tasks: tasks}
	if spec.Linux.Seccomp != nil {
		if config.Seccomp, err = seccomp.Compile(spec.Linux.Seccomp); err != nil {
			return nil, err
		}
	}
	return config, nil
}

// pipes makes the program's standard streams: pipes of its own, so that no
// descriptor of ours, and least of all our terminal, is seen inside. Where a
// terminal takes their place, the one that holds it is a pipe, too: what lies
// at a name in the container is for the container to choose, and a link there
// would have us open, and hand in, a file of the host.
func (x *Exec) pipes(terminal bool) (theirs []*os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if terminal {
		return []*os.File{r, w, w}, nil
	}
	x.stdin, theirs = w, []*os.File{r}
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return theirs, err
		}
		x.output, theirs = append(x.output, r), append(theirs, w)
	}
	return theirs, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close() // a second time does no harm
	}
}

// Copy connects the program's streams with ours until it closes its output.
// Input is copied in the background; nil ends the program's input at once. When
// output cannot be written the program's end of it breaks, and the error is an
// *OutputError.
func (x *Exec) Copy(stdin io.Reader, stdout, stderr io.Writer) error {
	input := x.stdin
	if x.master != nil {
		input = x.master
	}
	switch {
	case stdin != nil:
		go func() {
			_, _ = io.Copy(input, stdin)
			if x.master == nil {
				input.Close()
			}
		}()
	case x.master == nil:
		input.Close()
	}
	if x.master != nil {
		return copyOut(stdout, x.master, "standard output")
	}
	var wg sync.WaitGroup
	var lost [2]error
	for i, w := range []io.Writer{stdout, stderr} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			lost[i] = copyOut(w, x.output[i], []string{"standard output", "standard error"}[i])
		}()
	}
	wg.Wait()
	return errors.Join(lost[:]...)
}

// copyOut copies until the end, or until nothing can be written: then it closes
// the source, on which the program would wait for ever else.
func copyOut(to io.Writer, from *os.File, name string) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, lost := to.Write(buf[:n]); lost != nil {
				from.Close()
				return &OutputError{Stream: name, Err: lost}
			}
		}
		if err != nil {
			return nil
		}
	}
}

// Resize tells the program's terminal its size.
func (x *Exec) Resize(rows, columns uint16) { setSize(x.master, rows, columns) }

// Signal sends a signal to the program.
func (x *Exec) Signal(sig unix.Signal) { _ = unix.Kill(x.Pid, sig) }

// Wait waits for the program's end and returns its exit status.
func (x *Exec) Wait() (int, error) {
	var status unix.WaitStatus
	if _, err := retry(func() (int, error) { return unix.Wait4(x.Pid, &status, 0, nil) }); err != nil {
		return UnknownExit, fmt.Errorf("wait for pid %d: %w", x.Pid, err)
	}
	return exitCode(status), nil
}

// Close closes our ends of the program's streams.
func (x *Exec) Close() {
	for _, f := range append([]*os.File{x.master, x.stdin}, x.output...) {
		if f != nil {
			f.Close()
		}
	}
}
