package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what the numbers were measured on.
type machine struct {
	When       time.Time         `json:"when"`
	Kernel     string            `json:"kernel"`
	CPU        string            `json:"cpu"`
	Processors int               `json:"processors"`
	MemoryMiB  int64             `json:"memoryMiB"`
	Filesystem string            `json:"filesystem"` // of the images
	Load       string            `json:"load"`       // 1, 5 and 15 minutes, at the start
	LoadAfter  string            `json:"loadAfter"`
	Versions   map[string]string `json:"versions"`
}

func describe(ctx context.Context, o options) (machine, error) {
	m := machine{When: time.Now().UTC().Truncate(time.Second), Processors: runtime.NumCPU(), Versions: map[string]string{}}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, fmt.Errorf("uname: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(uts.Release[:])
	err := errors.Join(
		parseFile("/proc/cpuinfo", func(r io.Reader) (err error) { m.CPU, err = parseCPU(r); return }),
		parseFile("/proc/meminfo", func(r io.Reader) error {
			all, err := parseSizes(r)
			m.MemoryMiB = all["MemTotal"] >> 10
			return err
		}),
	)
	m.Load, m.Filesystem = loadNow(), filesystemOf(o.dir)
	for name, argv := range map[string][]string{
		"crucible": {o.crucible, "--version"}, "criu": {o.criu, "--version"},
		"runc": {"runc", "--version"}, "lxc": {"lxc-execute", "--version"},
	} {
		m.Versions[name] = firstVersion(ctx, argv)
	}
	return m, err
}

func parseFile(path string, parse func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := parse(f); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// firstVersion is the last word of the first line that a program says about itself.
func firstVersion(ctx context.Context, argv []string) string {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	line, _, _ := strings.Cut(string(out), "\n")
	words := strings.Fields(line)
	if err != nil || len(words) == 0 {
		return "missing"
	}
	return words[len(words)-1]
}

// parseCPU finds the processor's name in /proc/cpuinfo; arm64 has none there.
func parseCPU(r io.Reader) (string, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value), nil
		}
	}
	return runtime.GOARCH, lines.Err()
}

// parseSizes reads lines like "Slab:  1234 kB": /proc/meminfo, proc_pid_status(5),
// smaps_rollup. Sizes are in KiB; lines without one are passed over.
func parseSizes(r io.Reader) (map[string]int64, error) {
	out := map[string]int64{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, rest, ok := strings.Cut(lines.Text(), ":")
		words := strings.Fields(rest)
		if !ok || len(words) != 2 || words[1] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		out[key] = n
	}
	return out, lines.Err()
}

// parseLoad reads the load average of the last minute from /proc/loadavg.
func parseLoad(s string) (float64, error) {
	first, _, _ := strings.Cut(s, " ")
	n, err := strconv.ParseFloat(strings.TrimSpace(first), 64)
	if err != nil {
		return 0, fmt.Errorf("load average %q: %w", s, err)
	}
	return n, nil
}

func loadNow() string {
	data, _ := os.ReadFile("/proc/loadavg")
	words := strings.Fields(string(data))
	return strings.Join(words[:min(3, len(words))], " ")
}

// busyness judges the load: above a quarter of the processors the numbers are
// noisy, above all of them they are worthless.
func busyness(load float64, processors int) (noisy, worthless bool) {
	part := load / float64(processors)
	return part > 0.25, part > 1
}

// filesystemOf names the kind of file system that a directory is on, as far as it matters here.
func filesystemOf(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "unknown"
	}
	switch int64(st.Type) {
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	}
	return fmt.Sprintf("%#x", int64(st.Type))
}

// parentOf reads the parent from proc_pid_stat(5).
func parentOf(stat string) (int, error) {
	end := strings.LastIndexByte(stat, ')') // the name may hold anything
	words := strings.Fields(stat[end+1:])
	if end < 0 || len(words) < 2 {
		return 0, fmt.Errorf("process status %q: unexpected form", stat)
	}
	return strconv.Atoi(words[1])
}
