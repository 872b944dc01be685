package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

// On a kernel that was built without it, checkpoint and restore say so and do
// nothing else. Such a kernel answers prctl(PR_SET_MM) with EINVAL, as a system
// call filter does here.
func TestKernelWithoutCheckpointRestore(t *testing.T) {
	s := newStage(t)
	s.do("run", "-d", "--name", s.name, "--", "sleep", "1000")
	s.do("checkpoint", "-R", s.name)
	for _, args := range [][]string{
		{"checkpoint", s.name}, {"checkpoint", "--dry-run", s.name}, {"restore", "--name", s.name + "b", s.name},
		{"restore", "--count", "2", "--name", s.name + "b", s.name},
	} {
		stderr, code := withoutPrctlMM(t, s.bin, args...)
		first, hint, _ := strings.Cut(stderr, "\n")
		if code != 7 || !strings.HasSuffix(first, ": the kernel was built without CONFIG_CHECKPOINT_RESTORE") || !strings.HasPrefix(hint, "hint: ") {
			t.Errorf("%s: exit code %d: %s", args, code, stderr)
		}
	}
	var rows []row
	if err := json.Unmarshal([]byte(s.do("list", "--json")), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].Status != "running" {
		t.Errorf("%+v", rows)
	}
}

// withoutPrctlMM runs a command to which the kernel refuses PR_SET_MM.
func withoutPrctlMM(t *testing.T, name string, args ...string) (stderr string, code int) {
	t.Helper()
	const nr, arg0 = 0, 16 // in struct seccomp_data; little endian
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PRCTL, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: arg0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PR_SET_MM, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	cmd := exec.Command(name, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the filter cannot be taken away again
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
		if err == nil {
			err = cmd.Start()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return said.String(), cmd.ProcessState.ExitCode()
}

// Without room for the results, or for the machine itself, nothing is said of
// the kernel.
func TestKernelDiskFull(t *testing.T) {
	s := newStage(t)
	if testing.Short() {
		testenv.Skip(t, "boots machines")
	}
	for _, test := range []struct {
		name, size string
		place      func(dir string) (flag, env string)
	}{
		{"results", "4k", func(dir string) (string, string) { return "--results=" + dir, "" }},
		{"machine", "1m", func(dir string) (string, string) { return "--results=" + t.TempDir(), "TMPDIR=" + dir }},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("none", dir, "tmpfs", 0, "size="+test.size); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(dir, 0)
			if err := os.WriteFile(filepath.Join(dir, "filler"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			flag, env := test.place(dir)
			cmd := exec.Command(s.bin, "kernel", "test", "--kernel", "debian:6.12", "--case", "pipe", flag)
			cmd.Env = append(os.Environ(), env)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			_ = cmd.Run()
			said := stderr.String()
			if code := cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(said, "no space left on device\nhint: make room") {
				t.Errorf("exit code %d: %s", code, said)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "crucible-lab.*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}
