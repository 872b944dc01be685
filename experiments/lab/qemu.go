package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// QEMU is the machine emulator that was found.
type QEMU struct {
	Path string
	KVM  bool // the processor's own virtualisation works here, as was tried
}

// FindQEMU finds QEMU and tries whether KVM works.
func FindQEMU(ctx context.Context) (*QEMU, error) {
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, &Fault{
			Op: "find QEMU", Err: errors.New("there is no qemu-system-x86_64 in PATH"),
			Remedy: "run scripts/setup --lab, or install the package qemu-system-x86",
		}
	}
	q := &QEMU{Path: path}
	q.KVM = q.tryKVM(ctx)
	return q, ctx.Err()
}

// tryKVM has QEMU execute two instructions by KVM. A /dev/kvm that is there and
// may be opened says little: in a nested machine it can lack what QEMU needs,
// or hang every guest. It takes 0.1 s.
func (q *QEMU) tryKVM(ctx context.Context) bool {
	return unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) == nil && q.try(ctx, "-accel", "kvm", "-cpu", "host") == nil
}

// try starts a machine with some arguments whose firmware is 64 KiB with two
// instructions at the reset vector (Intel SDM vol. 3, 10.1.4): they write to the
// port of QEMU's isa-debug-exit, which ends with the status 2*0x10+1. Any other
// end is an error.
func (q *QEMU) try(ctx context.Context, args ...string) error {
	dir, err := os.MkdirTemp("", "crucible-try.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	firmware := make([]byte, 64<<10)
	copy(firmware[len(firmware)-16:], []byte{
		0xb0, 0x10, // mov al, 0x10
		0xe6, 0xf4, // out 0xf4, al
		0xf4, // hlt
	})
	file := filepath.Join(dir, "firmware")
	if err := os.WriteFile(file, firmware, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	args = append(append(bareMachine(), args...), "-m", "16", "-bios", file, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x1")
	said, err := exec.CommandContext(ctx, q.Path, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 0x10<<1|1 {
		return nil
	}
	if text := strings.TrimSpace(string(said)); text != "" {
		return errors.New(text)
	}
	return err
}

// Version is how QEMU names its version, as "7.2.22 (Debian 1:7.2+dfsg-7)".
func (q *QEMU) Version(ctx context.Context) (string, error) {
	text, err := exec.CommandContext(ctx, q.Path, "--version").Output()
	if err != nil {
		return "", &Fault{Op: "ask QEMU's version", Err: err}
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimPrefix(line, "QEMU emulator version "), nil
}

// bareMachine is a PC without what a guest of ours has no use for.
func bareMachine() []string {
	return []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35,hpet=off"}
}

// arguments is QEMU's command line for a machine whose files are in dir. The
// guest's first serial port is the kernel's console; the second one, for
// messages, is QEMU's standard output (and input).
func (m *Machine) arguments(dir string, kvm bool) []string {
	args := bareMachine()
	switch {
	case m.Count != nil:
		args = append(args, m.Count.arguments(dir)...)
	case kvm:
		args = append(args, "-accel", "kvm", "-cpu", "host")
	default:
		// The buffer for translated code would grow to a gigabyte.
		args = append(args, "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max")
	}
	args = append(args,
		"-m", strconv.Itoa(m.memory()), "-smp", strconv.Itoa(m.cpus()),
		"-kernel", m.Kernel, "-initrd", filepath.Join(dir, "initramfs"),
		"-append", m.commandLine())
	if m.Job.Shell != nil {
		args = append(args, "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
			"-serial", "file:"+filepath.Join(dir, "messages"))
	} else {
		args = append(args, "-serial", "file:"+filepath.Join(dir, consoleName),
			"-chardev", "stdio,id=messages,signal=off", "-serial", "chardev:messages")
	}
	if m.disk() {
		args = append(args, "-drive", "if=none,id=results,format=raw,cache=unsafe,file="+filepath.Join(dir, "disk"),
			"-device", "virtio-blk-pci,drive=results")
	}
	if m.GDB {
		args = append(args, "-gdb", "tcp:127.0.0.1:1234", "-S")
	}
	return args
}

// commandLine is the kernel's. An oops is a panic and a panic ends the machine,
// so that none is overlooked. The watchdogs are off because an emulated
// processor can be kept from running by the host for as long as it likes. For
// the same reason the kernel's measurement of its time stamp counter can be
// wrong by a factor, and with it every time-out in the guest, and its check of
// the timer's interrupt can fail: the ACPI timer, whose frequency is fixed, is
// the clock of an emulated machine, and the interrupt is not checked.
func (m *Machine) commandLine() string {
	words := []string{
		"console=ttyS0", "loglevel=5", "panic=-1", "oops=panic", "reboot=t", "nowatchdog",
		"random.trust_cpu=on", "mitigations=off", "8250.nr_uarts=4",
	}
	switch {
	case m.Count != nil:
		words = append(words, m.Count.words()...)
	case !m.QEMU.KVM:
		words = append(words, "clocksource=acpi_pm", "no_timer_check")
	}
	if m.Job.Shell != nil {
		words = append(words, "quiet")
	}
	if m.Cgroup == CgroupV2 {
		words = append(words, "cgroup_no_v1=all")
	}
	if m.GDB {
		words = append(words, "nokaslr")
	}
	return strings.Join(append(words, m.Append...), " ")
}

// consoleName is the file of the results folder that holds the kernel's log.
const consoleName = "console.log"

func (m *Machine) memory() int {
	if m.MemoryMiB == 0 {
		return 512
	}
	return m.MemoryMiB
}

func (m *Machine) cpus() int {
	if m.Count != nil {
		return 1
	}
	return max(m.CPUs, 1)
}

// disk: whether the guest gets a disk to write its results folder to.
func (m *Machine) disk() bool { return m.Keep != "" && m.Count == nil }
