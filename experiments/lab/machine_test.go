package lab_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"crucible/container/proc"
	"crucible/container/testenv"
	"crucible/experiments/lab"
	"crucible/experiments/lab/archive"
)

// labs is a machine that only lacks a job.
func labs(t *testing.T) lab.Machine {
	t.Helper()
	if testing.Short() {
		testenv.Skip(t, "boots a machine")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		testenv.Skip(t, "%v: run scripts/setup --tests", err)
	}
	ctx := t.Context()
	store, err := archive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := lab.FindKernel(ctx, store, "debian:6.12")
	var away *archive.Unreachable
	var none *archive.NoApt
	if errors.As(err, &away) || errors.As(err, &none) {
		testenv.Skip(t, "no kernel to boot: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	qemu, err := lab.FindQEMU(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return lab.Machine{
		QEMU: qemu, Kernel: kernel.Image, Modules: kernel.Modules,
		Program: testenv.Binary(t), Keep: t.TempDir(),
	}
}

// guestProgram builds testdata/guest and gives the machine a job of it.
func guestProgram(t *testing.T, m *lab.Machine, args ...string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "guest")
	build := exec.Command("go", "build", "-o", program, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.Files = append(m.Files, lab.File{Path: "/guest", Mode: 0o755, Source: program})
	m.Job = lab.Job{Exec: &lab.Exec{Args: append([]string{"/guest"}, args...)}}
}

// heard collects what a machine says.
type heard struct {
	out, err string
	kernel   []string
}

func (h *heard) take(m lab.Message) error {
	h.out += string(m.Stdout)
	h.err += string(m.Stderr)
	h.kernel = append(h.kernel, m.Kernel...)
	return nil
}

func TestExec(t *testing.T) {
	m := labs(t)
	testenv.LeakCheck(t)
	var h heard
	guestProgram(t, &m, "exit")
	m.Handle = h.take
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.Status() != 3 || h.out != "out\n" || h.err != "err\n" {
		t.Errorf("status %d, stdout %q, stderr %q", m.Status(), h.out, h.err)
	}
	if text, err := os.ReadFile(filepath.Join(m.Keep, "note")); err != nil || string(text) != "kept\n" {
		t.Errorf("the results folder has %q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(m.Keep, "console.log")); err != nil || len(text) == 0 {
		t.Errorf("the kernel's log was not kept: %v", err)
	}
	if r := m.Ready(); r == nil || !strings.HasPrefix(r.Release, "6.12.") || r.Uptime <= 0 {
		t.Errorf("ready: %+v", r)
	}
}

// Without a driver for the disk the smaller results come by messages.
func TestNoDisk(t *testing.T) {
	m := labs(t)
	guestProgram(t, &m, "exit")
	var kept []lab.File
	for _, f := range m.Modules {
		if !strings.Contains(f.Path, "virtio_blk") {
			kept = append(kept, f)
		}
	}
	if len(kept) == len(m.Modules) {
		t.Fatal("the kernel has no module virtio_blk to leave out")
	}
	m.Modules = kept
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(m.Keep, "note")); err != nil || string(text) != "kept\n" {
		t.Errorf("the results folder has %q, %v", text, err)
	}
}

// What goes wrong in the guest is the kernel's fault, or the lab's.
func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		name   string
		job    []string // of the guest
		change func(*lab.Machine)
		kernel string // in a *lab.KernelError
		fault  string // in a *lab.Fault
	}{
		{name: "panics in the test", job: []string{"panic"}, kernel: "panicked"},
		{name: "hangs", job: []string{"hang"}, change: func(m *lab.Machine) { m.Silence = 2 * time.Second }, kernel: "fell silent"},
		{name: "sleeps", job: []string{"sleep"}, change: func(m *lab.Machine) { m.Silence = time.Second }, kernel: "fell silent"},
		{name: "panics at boot", job: []string{"exit"}, change: func(m *lab.Machine) { m.Append = []string{"rdinit=/absent"} }, fault: "Kernel panic"},
		{name: "slow to boot", job: []string{"exit"}, change: func(m *lab.Machine) { m.Boot = 500 * time.Millisecond }, fault: "not ready in time"},
		{name: "no serial console", job: []string{"exit"}, change: func(m *lab.Machine) { m.Append = []string{"console=tty0"} }, fault: ""},
		{name: "modules do not fit", job: []string{"exit"}, change: func(m *lab.Machine) {
			m.Modules = append(m.Modules, lab.File{Path: "/lab/modules/bad.ko", Mode: 0o644, Data: []byte("no module")})
		}, fault: "do not fit"},
		{name: "no such program", job: []string{"exit"}, change: func(m *lab.Machine) { m.Job.Exec.Args[0] = "/absent" }, fault: "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := labs(t)
			testenv.LeakCheck(t)
			guestProgram(t, &m, test.job...)
			if test.change != nil {
				test.change(&m)
			}
			err := m.Run(t.Context())
			var kernel *lab.KernelError
			var fault *lab.Fault
			switch {
			case test.kernel != "" && (!errors.As(err, &kernel) || !strings.Contains(err.Error(), test.kernel)):
				t.Errorf("got %v, want the kernel's fault: %s", err, test.kernel)
			case test.fault != "" && (!errors.As(err, &fault) || !strings.Contains(err.Error(), test.fault)):
				t.Errorf("got %v, want the lab's fault: %s", err, test.fault)
			case test.kernel == "" && test.fault == "" && err != nil:
				t.Error(err)
			}
		})
	}
}

func TestComplaint(t *testing.T) {
	m := labs(t)
	var h heard
	guestProgram(t, &m, "warn")
	m.Handle = h.take
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(h.kernel) != 1 || !strings.Contains(h.kernel[0], "planted") {
		t.Errorf("complaints: %q", h.kernel)
	}
}

// QEMU that is killed is no fault of the kernel's, and neither is an interrupt.
func TestEnded(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(cancel func())
		want func(error) bool
	}{
		{"QEMU killed", func(func()) { killQEMU(t) }, func(err error) bool {
			var fault *lab.Fault
			return errors.As(err, &fault)
		}},
		{"interrupted", func(cancel func()) { cancel() }, func(err error) bool { return errors.Is(err, context.Canceled) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := labs(t)
			testenv.LeakCheck(t)
			guestProgram(t, &m, "hang")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			m.Handle = func(msg lab.Message) error {
				if msg.Ready != nil {
					test.end(cancel)
				}
				return nil
			}
			if err := m.Run(ctx); !test.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// killQEMU kills the machine that this process has started.
func killQEMU(t *testing.T) {
	self, err := proc.FS("/proc").Tree(os.Getpid())
	if err != nil {
		t.Error(err)
		return
	}
	for _, p := range self.All() {
		if stat, err := proc.FS("/proc").Stat(p.PID); err == nil && strings.HasPrefix(stat.Comm, "qemu-system") {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
}
