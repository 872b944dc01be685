package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FS is where a proc file system is mounted.
type FS string

// Root is the proc file system of the host, or of whoever calls.
const Root FS = "/proc"

func (f FS) path(id int, name string) string {
	return filepath.Join(string(f), strconv.Itoa(id), name)
}

// read parses a file of a process. A process that ends while its file is being
// read gives ESRCH; it has ended all the same, so that callers need to know
// fs.ErrNotExist only.
func read[T any](f FS, id int, name string, parse func(io.Reader) (T, error)) (T, error) {
	data, err := os.ReadFile(f.path(id, name))
	if err != nil {
		var zero T
		return zero, gone(err)
	}
	v, err := parse(bytes.NewReader(data))
	if err != nil {
		return v, fmt.Errorf("read %s: %w", f.path(id, name), err)
	}
	return v, nil
}

func gone(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) && errors.Is(err, unix.ESRCH) {
		return &os.PathError{Op: pathErr.Op, Path: pathErr.Path, Err: unix.ENOENT}
	}
	return err
}

// Stat reads /proc/ID/stat of a process or a thread.
func (f FS) Stat(id int) (Stat, error) { return read(f, id, "stat", ParseStat) }

// Status reads /proc/ID/status of a process or a thread.
func (f FS) Status(id int) (Status, error) { return read(f, id, "status", ParseStatus) }

// Cgroups reads /proc/ID/cgroup of a process or a thread.
func (f FS) Cgroups(id int) ([]Cgroup, error) { return read(f, id, "cgroup", ParseCgroups) }

// FDs maps each open descriptor to what /proc/PID/fd shows it to be. One that
// is closed meanwhile is left out.
func (f FS) FDs(pid int) (map[int]string, error) {
	dir := f.path(pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, gone(err)
	}
	all := make(map[int]string, len(entries))
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, fmt.Errorf("read %s: entry %q: %w", dir, e.Name(), err)
		}
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(gone(err), os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[fd] = target
	}
	return all, nil
}

// Args reads /proc/PID/cmdline: the arguments as the process itself keeps
// them, nil for a kernel thread and a zombie.
func (f FS) Args(pid int) ([]string, error) {
	data, err := os.ReadFile(f.path(pid, "cmdline"))
	if err != nil {
		return nil, gone(err)
	}
	if len(data) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"), nil
}

// Exe reads the link /proc/PID/exe; " (deleted)" follows the path of a file
// that was.
func (f FS) Exe(pid int) (string, error) {
	target, err := os.Readlink(f.path(pid, "exe"))
	return target, gone(err)
}

// WaitChannel is the kernel function in which a sleeping thread waits, or ""
// where it runs or the kernel does not say (no CONFIG_KALLSYMS, or no right
// to trace the process).
func (f FS) WaitChannel(id int) string {
	data, err := os.ReadFile(f.path(id, "wchan"))
	if err != nil || string(data) == "0" {
		return ""
	}
	return string(data)
}

// PIDs lists all processes.
func (f FS) PIDs() ([]int, error) { return numbers(string(f)) }

// numbers lists the entries of a directory that are numbers, in the order in
// which the kernel gives them, which is ascending.
func numbers(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, gone(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, gone(err)
	}
	var all []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n > 0 {
			all = append(all, n)
		}
	}
	return all, nil
}
