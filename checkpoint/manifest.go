package checkpoint

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crucible/images"
	"crucible/proto/imagepb"
)

// writer says what writes the image: the program, the kernel and the machine.
// It is read before the freeze.
func writer(version string) (*imagepb.Writer, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, os.NewSyscallError("uname", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	w := &imagepb.Writer{
		Crucible:      version,
		KernelRelease: unix.ByteSliceToString(u.Release[:]), KernelVersion: unix.ByteSliceToString(u.Version[:]),
		Machine: unix.ByteSliceToString(u.Machine[:]), Host: unix.ByteSliceToString(u.Nodename[:]),
		PageSize: uint32(os.Getpagesize()), BootId: strings.TrimSpace(string(boot)),
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	w.Cpus = uint32(cpus.Count())
	return w, readCPU(w)
}

// readCPU reads the first processor of /proc/cpuinfo, whose lines differ
// between architectures (proc_cpuinfo(5)).
func readCPU(w *imagepb.Writer) error {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan() && s.Text() != ""; {
		key, value, _ := strings.Cut(s.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "microcode":
			w.CpuMicrocode = value
		case "vendor_id", "CPU implementer":
			w.CpuVendor = value
		case "model name", "CPU part", "uarch":
			w.CpuModel = value
		case "flags", "Features", "isa":
			w.CpuFlags = strings.Fields(value)
		}
	}
	return nil
}

// commit writes the last of our own files, digests everything and makes the
// draft an image.
func (d *dump) commit(ctx context.Context) error {
	d.line.Step("record processes", !d.o.LeaveRunning)
	if err := d.record(); err != nil {
		return err
	}
	d.line.Step("digests", !d.o.LeaveRunning)
	if !d.o.PreDump {
		if err := d.draft.Put(images.Filesystem, d.archives); err != nil {
			return err
		}
	}
	if err := d.keepLog(); err != nil {
		return err
	}
	if err := d.draft.Digest(ctx); err != nil {
		return err
	}
	d.line.Step("commit", !d.o.LeaveRunning)
	if err := d.putStatistics(); err != nil {
		return err
	}
	if err := d.draft.Put(images.Timeline, d.line.Proto(d.p.Marks())); err != nil {
		return err
	}
	frozen := d.frozen
	if frozen == 0 && !d.frozenAt.IsZero() {
		frozen = time.Since(d.frozenAt)
	}
	// Not what the dump was allowed, but what CRIU found.
	streams, err := filepath.Glob(d.draft.CRIUDir() + "/tcp-stream-*.img")
	if err != nil {
		return err
	}
	d.writer.KernelConfigSha256, d.writer.KernelConfigPath = d.config()
	m := &imagepb.Manifest{
		CreatedUnixNs: d.line.Started.UnixNano(), Writer: d.writer, Command: d.o.Command,
		DurationNs: int64(time.Since(d.line.Started)), FrozenNs: int64(frozen), LeftRunning: d.o.LeaveRunning,
		Options: d.options,
		Traits: &imagepb.Traits{
			EstablishedTcp: len(streams) > 0, Terminal: d.spec.Process.Terminal,
			UserNamespace: len(d.spec.Linux.UIDMappings) > 0, Processes: uint32(len(d.processes.GetProcesses())),
			BoundSockets: uint32(d.bound), ConnectedUdp: uint32(d.connectedUDP), PreDump: d.o.PreDump,
		},
		Tracking: d.tracking(),
	}
	for _, p := range d.processes.GetProcesses() {
		m.Traits.Threads += p.Threads
	}
	d.image, err = d.draft.Commit(ctx, m)
	return err
}

func (d *dump) writeBundle() error {
	data, err := os.ReadFile(d.c.Dir + "/config.json")
	if err != nil {
		return err
	}
	return d.draft.Write(images.Bundle, data)
}
