package lab_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crucible/container/testenv"
	"crucible/experiments/lab"
)

// pluginFor builds the plug-in, and finds it built the next time.
func pluginFor(t *testing.T, q *lab.QEMU) string {
	t.Helper()
	dir := t.TempDir()
	plugin, err := lab.BuildPlugin(t.Context(), q, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/absent")
	again, err := lab.BuildPlugin(t.Context(), q, dir)
	if err != nil || again != plugin {
		t.Errorf("the second time: %s, %v, want %s", again, err, plugin)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
	return plugin
}

// A guest that counts does the same each time, whatever the host does besides:
// to the last instruction of the kernel and its interrupts.
func TestCount(t *testing.T) {
	m := labs(t)
	testenv.LeakCheck(t)
	guestProgram(t, &m, "count")
	m.Count = &lab.Count{Seed: 1, Plugin: pluginFor(t, m.QEMU)}
	m.QEMU.KVM = true // which is not used

	run := func() (all []lab.Section, digest string) {
		m := m
		m.Handle = func(msg lab.Message) (err error) {
			if msg.End != nil {
				all, err = m.Sections()
			}
			return err
		}
		if err := m.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		return all, m.Digest()
	}
	first, digest := run()
	stop := load()
	again, same := run()
	stop()
	if diff := cmp.Diff(first, again); diff != "" || digest != same || digest == "" {
		t.Errorf("digests %s, %s: %s", digest, same, diff)
	}
	if len(first) != 6 {
		t.Fatalf("%d sections, want 6", len(first))
	}
	// Sections of 10,000, 20,000 and 30,000 turns: the growth is the turns', and
	// what the kernel does on the side, for which there is a margin.
	loop := func(n int) int64 { return int64(first[2*n].User - first[0].User) }
	calls := func(n int) int64 { return int64(first[2*n+1].Kernel - first[1].Kernel) }
	if one, two := loop(1), loop(2); one < 30e3 || one > 80e3 || two < one*3/2 || two > one*5/2 {
		t.Errorf("10,000 turns of a loop take %d instructions, 20,000 %d", one, two)
	}
	if one, two := calls(1), calls(2); one < 500e3 || one > 10e6 || two < 2*one*9/10 || two > 2*one*11/10 {
		t.Errorf("10,000 system calls take %d instructions, 20,000 %d", one, two)
	}
	t.Logf("10,000 turns of a loop take %d instructions, 10,000 system calls %d", loop(1), calls(1))
	for i, s := range first {
		if want := lab.Mark(1 + i%2); s.Mark != want {
			t.Errorf("section %d has mark %d, want %d", i, s.Mark, want)
		}
	}
}

// load keeps the processors busy.
func load() (stop func()) {
	var over atomic.Bool
	var wait sync.WaitGroup
	for range runtime.NumCPU() {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for !over.Load() {
			}
		}()
	}
	return func() { over.Store(true); wait.Wait() }
}

func TestBuildPlugin(t *testing.T) {
	q := labs(t).QEMU
	for _, test := range []struct {
		name, cc string
		want     string // in a *lab.Fault, which has a hint
	}{
		{name: "no compiler", want: "no C compiler"},
		{name: "a compiler without headers", cc: "#!/bin/sh\necho stdio.h is missing\nexit 1\n", want: "stdio.h is missing"},
		{name: "a QEMU without plug-ins", cc: "#!/bin/sh\nwhile [ \"$1\" != -o ]; do shift; done\n: > \"$2\"\n", want: "load the plug-in"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bin, dir := t.TempDir(), t.TempDir()
			if test.cc != "" {
				if err := os.WriteFile(filepath.Join(bin, "cc"), []byte(test.cc), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin)
			_, err := lab.BuildPlugin(t.Context(), q, dir)
			var fault *lab.Fault
			if !errors.As(err, &fault) || !strings.Contains(err.Error(), test.want) || fault.Hint() == "" {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if files, _ := os.ReadDir(dir); len(files) != 0 {
				t.Errorf("left behind: %v", files)
			}
		})
	}
}
