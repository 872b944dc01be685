package lab

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Machine is a virtual machine that is to be started. Like an exec.Cmd it is
// used once.
type Machine struct {
	QEMU    *QEMU
	Kernel  string // a bzImage of the host
	Modules []File // in the order in which the guest is to load them
	Files   []File // programs and what they need; of two with one path the first
	Criu    string // which of them is CRIU; a path in the guest
	Rundir  string // where that CRIU keeps its cache; "" is /run
	Program string // crucible itself, a static program of the host; "" is this one
	Cgroup  string // CgroupV2 if empty
	Job     Job

	MemoryMiB int      // 512 if 0
	CPUs      int      // 1 if 0
	Append    []string // more words for the kernel's command line
	Absent    []string // modules that the kernel does not have
	GDB       bool     // wait for a debugger on TCP port 1234
	Count     *Count   // count instructions, in a machine that makes that exact

	// Keep is the directory that gets the kernel's log and what the guest left
	// in its results folder. If empty, nothing is kept.
	Keep string
	// Boot is how long the kernel may take until the guest is ready, Silence how
	// long the guest may say nothing afterwards. Both are seconds of processor
	// time that QEMU gets, so that a loaded host makes no hang; a machine that
	// does not use its processor has four times as long. 60 s and 20 s if 0, and
	// three times that for one that counts, which says less.
	Boot, Silence time.Duration

	// Handle is called for each message of the job, one at a time. An error
	// ends the machine, and Wait returns it.
	Handle func(Message) error
	// Stdin is a prompt's input, for Job.Shell; its output goes to Stdout.
	Stdin  io.Reader
	Stdout io.Writer

	dir    string   // the machine's files
	held   *os.File // that directory, locked
	digest string
	cmd    *exec.Cmd
	stderr bytes.Buffer
	watch  *watch
	done   chan error // what QEMU's end was
	said   error      // what reading its messages ended with
	heard  chan struct{}
	ready  *Ready
	end    *End
	fault  string
	during string
}

// Run starts the machine and waits for its end. Where KVM ends a machine before
// the guest is ready, emulation is tried: KVM inside of another machine can
// work for some instructions and not for a kernel.
func (m *Machine) Run(ctx context.Context) error {
	again := *m
	err := m.run(ctx)
	if m.QEMU.KVM && m.Count == nil && m.ready == nil && err != nil && ctx.Err() == nil && m.Job.Shell == nil {
		m.QEMU.KVM = false
		*m = again
		err = m.run(ctx)
	}
	return err
}

func (m *Machine) run(ctx context.Context) error {
	if err := m.Start(ctx); err != nil {
		return err
	}
	return m.Wait()
}

// Start writes the initramfs and starts QEMU. Cancelling the context ends it;
// so does the end of this process, whatever its cause.
func (m *Machine) Start(ctx context.Context) error {
	held, err := makeWorkDir()
	if err != nil {
		return &Fault{Op: "start a machine", Err: err}
	}
	m.dir, m.held = held.Name(), held
	if err := m.start(ctx); err != nil {
		m.removeWorkDir()
		return err
	}
	return nil
}

func (m *Machine) start(ctx context.Context) error {
	if err := m.write(); err != nil {
		return &Fault{Op: "write the machine's files", Err: err}
	}
	m.cmd = exec.CommandContext(ctx, m.QEMU.Path, m.arguments(m.dir, m.QEMU.KVM)...)
	m.cmd.Stderr = &m.stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.cmd.WaitDelay = time.Second
	var messages io.ReadCloser
	var err error
	if m.Job.Shell != nil {
		m.cmd.Stdin, m.cmd.Stdout = m.Stdin, m.Stdout
	} else if messages, err = m.cmd.StdoutPipe(); err != nil {
		return &Fault{Op: "start QEMU", Err: err}
	}
	m.done, m.heard = make(chan error, 1), make(chan struct{})
	started := make(chan error)
	go m.hold(ctx, messages, started)
	if err := <-started; err != nil {
		return &Fault{Op: "start QEMU", Err: err}
	}
	return nil
}

// hold starts QEMU and waits for it, on a thread of its own: the parent that
// Pdeathsig speaks of is the thread that forked (prctl(2), PR_SET_PDEATHSIG).
func (m *Machine) hold(ctx context.Context, messages io.Reader, started chan<- error) {
	runtime.LockOSThread()
	if err := m.cmd.Start(); err != nil {
		started <- err
		return
	}
	boot, silence := m.limits()
	m.watch = newWatch(m.cmd.Process.Pid, boot, silence)
	started <- nil
	if messages == nil {
		close(m.heard)
	} else {
		go func() {
			defer close(m.heard)
			m.said = m.listen(messages)
		}()
		stop := context.AfterFunc(ctx, func() { m.watch.stop() })
		defer stop()
		go m.watch.run(m.cmd.Process)
		<-m.heard // StdoutPipe: all must be read before Wait
	}
	err := m.cmd.Wait()
	m.watch.stop()
	m.done <- errors.Join(err, ctx.Err())
}

func (m *Machine) removeWorkDir() {
	os.RemoveAll(m.dir)
	m.held.Close()
}

func (m *Machine) limits() (boot, silence time.Duration) {
	boot, silence = 60*time.Second, 20*time.Second
	if m.Count != nil {
		boot, silence = 3*boot, 3*silence
	}
	return cmp.Or(m.Boot, boot), cmp.Or(m.Silence, silence)
}

// listen reads the messages. After an error QEMU is ended: nobody would take
// what it has to say.
func (m *Machine) listen(r io.Reader) error {
	err := readMessages(r, m.take, func([]byte) {})
	if err != nil {
		m.cmd.Process.Kill()
		io.Copy(io.Discard, r)
	}
	return err
}

func (m *Machine) take(msg Message) error {
	m.watch.heard(msg.Ready != nil)
	switch {
	case msg.Ready != nil:
		m.ready = msg.Ready
	case msg.Begin != "":
		m.during = msg.Begin
	case msg.Fault != "":
		m.fault = msg.Fault
	case msg.End != nil:
		m.end = msg.End
	case msg.File != nil:
		return m.keepChunk(*msg.File)
	}
	if msg.Alive || m.Handle == nil {
		return nil
	}
	return m.Handle(msg)
}

// Ready is what the guest said of itself; nil if it never came so far.
func (m *Machine) Ready() *Ready { return m.ready }

// Status is the exit status of a job that was done; -1 of one that was not.
func (m *Machine) Status() int {
	if m.end == nil {
		return -1
	}
	return m.end.Status
}

// Wait waits for the machine's end, and takes down what it was. The error is
// nil if the job was done, whatever its results; else it is a *KernelError or a
// *Fault, what Handle returned, or that of the context.
func (m *Machine) Wait() error {
	err := <-m.done
	defer m.removeWorkDir()
	console, _ := os.ReadFile(filepath.Join(m.dir, consoleName))
	kept, keepErr := m.keepConsole(console)
	if err := m.verdict(err, console, kept); err != nil {
		return err
	}
	if keepErr != nil {
		return &Fault{Op: "keep the kernel's log", Err: keepErr}
	}
	if m.disk() && (m.end != nil || m.Job.Shell != nil) {
		if err := m.keepDisk(); err != nil {
			return &Fault{Op: "keep the guest's results", Err: err}
		}
	}
	return nil
}

func (m *Machine) verdict(qemu error, console []byte, kept string) error {
	var exit *exec.ExitError
	switch {
	case errors.Is(qemu, context.Canceled), errors.Is(qemu, context.DeadlineExceeded):
		return qemu
	case m.Job.Shell != nil && qemu != nil:
		return m.qemuFault(qemu)
	case m.Job.Shell != nil:
		return m.afterShell()
	case m.said != nil:
		return m.said
	case m.watch.expired() && m.ready == nil:
		return &Fault{Op: "boot " + m.Kernel, Err: fmt.Errorf("the guest was not ready in time%s", lastWords(console)), Console: kept}
	case m.watch.expired() && m.end == nil:
		return &KernelError{What: "fell silent", During: m.during, Lines: complaints(console), Console: kept}
	case m.fault != "":
		return &Fault{Op: "set up the guest", Err: errors.New(m.fault), Console: kept}
	case m.end != nil && !m.watch.expired():
		return nil
	case errors.As(qemu, &exit) && exit.ExitCode() != 0:
		return m.qemuFault(qemu)
	case m.ready == nil:
		return &Fault{Op: "boot " + m.Kernel, Err: fmt.Errorf("the kernel did not get as far as the guest's first process%s", lastWords(console)), Console: kept}
	case m.end != nil:
		return &KernelError{What: "did not shut down", Lines: complaints(console), Console: kept}
	case bytes.Contains(console, []byte("Kernel panic")):
		return &KernelError{What: "panicked", During: m.during, Lines: complaints(console), Console: kept}
	}
	return &KernelError{What: "reset the machine", During: m.during, Lines: complaints(console), Console: kept}
}

// afterShell tells a prompt that was left from a machine that went away under it.
func (m *Machine) afterShell() error {
	messages, err := os.Open(filepath.Join(m.dir, "messages"))
	if err != nil {
		return &Fault{Op: "read the guest's messages", Err: err}
	}
	defer messages.Close()
	if err := readMessages(messages, m.take, func([]byte) {}); err != nil {
		return err
	}
	switch {
	case m.fault != "":
		return &Fault{Op: "set up the guest", Err: errors.New(m.fault)}
	case m.ready == nil:
		return &Fault{Op: "boot " + m.Kernel, Err: errors.New("the kernel did not get as far as a prompt")}
	case m.end == nil:
		return &KernelError{What: "panicked, or reset the machine"}
	}
	return nil
}

func (m *Machine) qemuFault(err error) error {
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(m.stderr.String()); text != "" {
		err = fmt.Errorf("%s (%w)", text, err)
	}
	return &Fault{Op: "run QEMU", Err: err}
}

// lastWords is the end of a kernel's log, for an error.
func lastWords(console []byte) string {
	if found := complaints(console); len(found) > 0 {
		return ": " + found[0]
	}
	lines := strings.Split(strings.TrimSpace(string(console)), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if last == "" {
		return "; it said nothing on its serial console (CONFIG_SERIAL_8250_CONSOLE)"
	}
	return "; its last line: " + last
}

// write writes the machine's files: initramfs and disk.
func (m *Machine) write() error {
	files, err := m.initramfs()
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(m.dir, "initramfs"))
	if err != nil {
		return err
	}
	defer out.Close()
	var w io.Writer = out
	digest := sha256.New()
	if m.Count != nil {
		w = io.MultiWriter(out, digest)
	}
	if err := writeInitramfs(w, files); err != nil {
		return err
	}
	m.digest = hex.EncodeToString(digest.Sum(nil))
	if m.disk() {
		disk, err := os.Create(filepath.Join(m.dir, "disk"))
		if err != nil {
			return err
		}
		defer disk.Close()
		return disk.Truncate(diskSize)
	}
	return out.Close()
}

// diskSize is the space for a guest's results; the file is sparse.
const diskSize = 2 << 30

func (m *Machine) initramfs() ([]File, error) {
	program := m.Program
	if program == "" {
		own, err := os.Executable()
		if err != nil {
			return nil, err
		}
		program = own
	}
	if err := Static(program); err != nil {
		return nil, err
	}
	p := plan{
		Cgroup: m.Cgroup, Criu: m.Criu, Rundir: m.Rundir, Disk: m.disk(), Absent: m.Absent, Job: m.Job, Hostname: "lab",
		Count: m.Count != nil,
	}
	if p.Cgroup == "" {
		p.Cgroup = CgroupV2
	}
	files := []File{
		{Path: "/srv", Mode: os.ModeDir | 0o755}, {Path: "/tmp", Mode: os.ModeDir | os.ModeSticky | 0o777}, {Path: "/var/tmp", Mode: os.ModeDir | os.ModeSticky | 0o777},
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")},
		{Path: programPath, Mode: 0o755, Source: program}, {Path: "/init", Link: programPath},
	}
	for _, module := range m.Modules {
		p.Modules = append(p.Modules, module.Path)
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	for _, dir := range mergedDirs() {
		files = append(files, File{Path: "/usr" + dir, Mode: os.ModeDir | 0o755}, File{Path: dir, Link: "usr" + dir})
	}
	files = append(files, m.Modules...)
	seen := map[string]bool{}
	for _, f := range m.Files {
		f.Path = merged(f.Path)
		if !seen[f.Path] && !slices.Contains(mergedDirs(), f.Path) {
			seen[f.Path] = true
			files = append(files, f)
		}
	}
	files = append(files, File{Path: planPath, Mode: 0o600, Data: text})
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/root", "/etc", "/var/lib/crucible", Results, "/newroot"} {
		files = append(files, File{Path: dir, Mode: os.ModeDir | 0o755})
	}
	return files, nil
}

// mergedDirs are links to what is below /usr, as in every distribution of today.
func mergedDirs() []string { return []string{"/bin", "/sbin", "/lib", "/lib64"} }

// merged is a path's place below /usr.
func merged(p string) string {
	for _, dir := range mergedDirs() {
		if strings.HasPrefix(p, dir+"/") {
			return "/usr" + p
		}
	}
	return p
}
