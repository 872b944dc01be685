package engine

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crucible/checkpoint"
)

// Provenance is what an experiment was run on, and with. What a machine does not
// tell is empty.
type Provenance struct {
	Started        time.Time         `json:"started"`
	Experiment     string            `json:"experiment"`       // path of the file, as it was given
	Digest         string            `json:"experimentSha256"` // of the file
	Seed           uint64            `json:"seed"`
	Crucible       string            `json:"crucible"`
	CRIU           string            `json:"criu"`
	Kernel         string            `json:"kernel"` // release
	KernelVersion  string            `json:"kernelVersion"`
	ConfigDigest   string            `json:"kernelConfigSha256,omitempty"`
	Machine        string            `json:"machine"`
	CPU            string            `json:"cpu"`
	Microcode      string            `json:"microcode,omitempty"`
	Processors     int               `json:"processors"`
	Governor       string            `json:"governor,omitempty"`
	Mitigations    map[string]string `json:"mitigations,omitempty"` // /sys/devices/system/cpu/vulnerabilities
	ClockSource    string            `json:"clockSource"`
	Hypervisor     bool              `json:"hypervisor"`  // the processor says that there is one
	MemoryBytes    uint64            `json:"memoryBytes"` // sysinfo(2)
	Filesystem     string            `json:"filesystem"`  // of the state root, by the magic of statfs(2)
	CgroupV2       bool              `json:"cgroupV2"`    // alone, without v1 hierarchies
	HugePages      string            `json:"transparentHugePages,omitempty"`
	AddressSpace   string            `json:"randomizeVaSpace,omitempty"`
	OvercommitMode string            `json:"overcommitMemory,omitempty"`
}

func describe(ctx context.Context, o Options, root string) (Provenance, error) {
	digest := sha256.Sum256(o.Plan.Source)
	p := Provenance{
		Started: time.Now().UTC(), Experiment: o.Plan.Path, Digest: hex.EncodeToString(digest[:]),
		Seed: o.Plan.File.Repetitions.Seed, Crucible: o.Version, Processors: runtime.NumCPU(),
		Governor:    line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
		ClockSource: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
		HugePages:   line("/sys/kernel/mm/transparent_hugepage/enabled"), AddressSpace: line("/proc/sys/kernel/randomize_va_space"),
		OvercommitMode: line("/proc/sys/vm/overcommit_memory"),
		Mitigations:    map[string]string{},
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return p, err
	}
	p.Kernel, p.KernelVersion = unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Version[:])
	p.Machine = unix.ByteSliceToString(uts.Machine[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		p.MemoryBytes = uint64(info.Totalram) * uint64(info.Unit)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err == nil {
		p.Filesystem = filesystem(int64(fs.Type))
	}
	var v2 unix.Statfs_t
	p.CgroupV2 = unix.Statfs("/sys/fs/cgroup", &v2) == nil && int64(v2.Type) == unix.CGROUP2_SUPER_MAGIC
	p.processor()
	files, _ := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	for _, f := range files {
		p.Mitigations[filepath.Base(f)] = line(f)
	}
	config, _ := checkpoint.KernelConfig(p.Kernel)
	p.ConfigDigest = hex.EncodeToString(config)
	if o.CRIU != "" {
		out, _ := exec.CommandContext(ctx, o.CRIU, "--version").Output()
		first, _, _ := strings.Cut(string(out), "\n")
		p.CRIU = strings.TrimPrefix(first, "Version: ")
	}
	return p, nil
}

// processor reads the first one of /proc/cpuinfo.
func (p *Provenance) processor() {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan() && lines.Text() != ""; {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			p.CPU = value
		case "microcode":
			p.Microcode = value
		case "flags":
			p.Hypervisor = strings.Contains(" "+value+" ", " hypervisor ")
		}
	}
}

func line(path string) string {
	data, _ := os.ReadFile(path)
	first, _, _ := strings.Cut(string(data), "\n")
	return first
}

// filesystem names the common ones: statfs(2).
func filesystem(magic int64) string {
	name := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", 0x2fc12fc1: "zfs",
	}[magic]
	if name == "" {
		name = "unknown"
	}
	return name
}
