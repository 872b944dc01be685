package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"crucible/container/proc"
)

func TestIsVfork(t *testing.T) {
	clone := "56"
	if vforkNumber() != 58 {
		clone = "220"
	}
	for text, want := range map[string]bool{
		fmt.Sprintf("%d 0x1 0x2 0x0 0x0 0x0 0x0 0x7ffd 0x7fd5\n", vforkNumber()): vforkNumber() > 0,
		clone + " 0x4111 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7fd5\n":                    true,  // CLONE_VM|CLONE_VFORK|SIGCHLD
		clone + " 0x1200011 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7fd5\n":                 false, // fork
		"435 0x7ffe 0x58 0x0 0x0 0x0 0x0 0x7ffd 0x7fd5\n":                        true,
		"230 0x0 0x0 0x7ffd 0x0 0x0 0x0 0x7ffd 0x7fd5\n":                         false,
		"running\n":              false,
		"-1 0x7ffd 0x7fd5\n":     false,
		"":                       false,
		"x 0x4111":               false,
		clone + " not-a-number ": false,
	} {
		if got := isVfork(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestVforking(t *testing.T) {
	fs := proc.FS(t.TempDir())
	write := func(pid, ppid int, flags, syscall string) {
		t.Helper()
		dir := filepath.Join(string(fs), fmt.Sprint(pid))
		if err := os.MkdirAll(filepath.Join(dir, "task", fmt.Sprint(pid)), 0o755); err != nil {
			t.Fatal(err)
		}
		stat := fmt.Sprintf("%d (sh) D %d 1 1 0 -1 %s 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n", pid, ppid, flags)
		for file, text := range map[string]string{"stat": stat, fmt.Sprintf("task/%d/syscall", pid): syscall} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	const executed, notExecuted = "4194560", "4194624" // without and with PF_FORKNOEXEC
	waits, sleeps := "435 0x1 0x0", "230 0x0 0x0"
	write(10, 1, executed, waits)
	write(11, 10, executed, sleeps)
	write(12, 99, notExecuted, sleeps) // its parent has gone
	pids := []int{10, 11, 12, 13}
	if got := vforking(fs, pids); got != 0 {
		t.Errorf("no child that has not executed: %d", got)
	}
	write(13, 11, notExecuted, sleeps)
	if got := vforking(fs, pids); got != 0 {
		t.Errorf("a forked child whose parent goes on: %d", got)
	}
	write(14, 10, notExecuted, sleeps)
	if got := vforking(fs, append(pids, 14)); got != 10 {
		t.Errorf("got %d, want 10", got)
	}
}
