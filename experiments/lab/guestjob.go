package lab

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// port is the second serial port, on which the guest speaks.
const portPath = "/dev/ttyS1"

// Guest is a job's side of the conversation. Its methods may be called from
// several goroutines.
type Guest struct {
	mu   sync.Mutex
	port *os.File

	logMu sync.Mutex
	log   *kernelLog
}

// Begin says that a part of the job starts.
func (g *Guest) Begin(what string) { g.say(Message{Begin: what}) }

// Alive says nothing but that. A guest says so once a second by itself, except
// where it counts.
func (g *Guest) Alive() { g.say(Message{Alive: true}) }

// Report says what it found.
func (g *Guest) Report(result any) error {
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	return g.say(Message{Result: text})
}

func (g *Guest) say(m Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err = g.port.Write(append(line, '\n'))
	return err
}

// say opens the port for one message.
func say(m Message) {
	g, err := openGuest()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", m.Fault)
		return
	}
	defer g.port.Close()
	_ = g.say(m)
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, g.port.Fd(), unix.TCSBRK, 1) // tcdrain(3)
}

// openGuest opens the port and has it pass bytes on as they are.
func openGuest() (*Guest, error) {
	fd, err := unix.Open(portPath, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: portPath, Err: err}
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w (no second serial port: CONFIG_SERIAL_8250_RUNTIME_UARTS)", portPath, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^unix.CBAUD | unix.B115200 | unix.CS8 | unix.CLOCAL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", portPath, err)
	}
	return &Guest{port: os.NewFile(uintptr(fd), portPath)}, nil
}

// doJob is the job's process. It returns its exit status: whatever the job
// found, that is 0 if it was done and told.
func doJob(workers map[string]Worker) int {
	p, err := readPlan()
	if err != nil {
		say(Message{Fault: err.Error()})
		return 0
	}
	g, err := openGuest()
	if err != nil {
		say(Message{Fault: err.Error()})
		return 0
	}
	if err := g.do(p, workers); err != nil {
		_ = g.say(Message{Fault: err.Error()})
	}
	return 0
}

func (g *Guest) do(p *plan, workers map[string]Worker) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	var err error
	if g.log, err = openKernelLog(); err != nil {
		return err
	}
	defer g.log.close()
	err = g.say(Message{Ready: &Ready{
		Release: unix.ByteSliceToString(name.Release[:]), Version: unix.ByteSliceToString(name.Version[:]),
		Uptime: uptime(), Absent: p.Absent,
	}})
	if err != nil {
		return err
	}
	stop := g.Settle
	if !p.Count {
		stop = g.background()
	}
	status, err := g.work(p, workers)
	stop()
	if err != nil {
		return err
	}
	if err := g.sendResults(p.Disk); err != nil {
		return err
	}
	return g.say(Message{End: &End{Status: status}})
}

// background says once a second that the guest is alive, and passes the
// kernel's complaints on as they come, the last of them before it stops.
func (g *Guest) background() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				g.Settle()
				return
			case <-tick.C:
				g.Settle()
				_ = g.say(Message{Alive: true})
			}
		}
	}()
	return func() { close(quit); <-done }
}

// Settle passes on what the kernel has complained about so far.
func (g *Guest) Settle() {
	g.logMu.Lock()
	defer g.logMu.Unlock()
	if lines := g.log.complaints(); len(lines) > 0 {
		_ = g.say(Message{Kernel: lines})
	}
}

func (g *Guest) work(p *plan, workers map[string]Worker) (int, error) {
	switch {
	case p.Job.Exec != nil:
		return g.exec(p)
	case p.Job.Shell != nil:
		return p.shell()
	}
	worker := workers[p.Job.Run]
	if worker == nil {
		return 0, fmt.Errorf("there is no job %q", p.Job.Run)
	}
	return 0, worker(p.Job.Args, g)
}

// exec runs a program; its output goes to the host as it comes.
func (g *Guest) exec(p *plan) (int, error) {
	x := p.Job.Exec
	cmd := exec.Command(x.Args[0], x.Args[1:]...)
	cmd.Env = append(p.environment(), x.Env...)
	cmd.Dir = x.Dir
	cmd.Stdout = sayer(func(b []byte) error { return g.say(Message{Stdout: b}) })
	cmd.Stderr = sayer(func(b []byte) error { return g.say(Message{Stderr: b}) })
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled():
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal()), nil
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	}
	return 0, err
}

// shell is a prompt on the console, which is the job's standard input and output.
func (p *plan) shell() (int, error) {
	x := p.Job.Shell
	if x.Rows > 0 {
		_ = unix.IoctlSetWinsize(0, unix.TIOCSWINSZ, &unix.Winsize{Row: x.Rows, Col: x.Columns})
	}
	cmd := exec.Command(x.Path)
	cmd.Env = append(p.environment(), "PS1=lab:\\w# ")
	cmd.Dir = Results
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return 0, nil
}

// sayer makes a writer of a function.
type sayer func([]byte) error

func (s sayer) Write(b []byte) (int, error) {
	if err := s(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// sendResults copies the results folder to the host: as a tar on the disk, or
// where the kernel has no driver for that, its smaller files by messages.
func (g *Guest) sendResults(disk bool) error {
	entries, err := os.ReadDir(Results)
	if err != nil || len(entries) == 0 && !disk {
		return err
	}
	if disk {
		out, err := os.OpenFile("/dev/vda", os.O_WRONLY, 0)
		if err == nil {
			return writeDisk(out)
		}
	}
	return filepath.WalkDir(Results, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > 256<<10 {
			return err
		}
		rel, err := filepath.Rel(Results, p)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return g.say(Message{File: &Chunk{Path: rel, Data: data}})
	})
}

func writeDisk(out *os.File) error {
	defer out.Close()
	w := tar.NewWriter(out)
	if err := w.AddFS(os.DirFS(Results)); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	// A tar ends with two blocks of zeros; a raw disk wants whole sectors, too.
	if err := out.Sync(); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}
