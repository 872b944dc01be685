package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crucible/container/testenv"
	"crucible/experiments/conformance"
	"crucible/experiments/lab"
	"crucible/experiments/lab/archive"
)

// Without a compiler time is compared, and it is said that it is; a kernel that
// does the same costs the same, and one that does more has exit status 1.
func TestKernelCompareCount(t *testing.T) {
	if testing.Short() {
		testenv.Skip(t, "boots machines")
	}
	store, err := archive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := lab.FindKernel(t.Context(), store, "debian:6.12")
	var away *archive.Unreachable
	var none *archive.NoApt
	if errors.As(err, &away) || errors.As(err, &none) {
		testenv.Skip(t, "no kernel to boot: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	testenv.LeakCheck(t)
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		testenv.Skip(t, "%v: run scripts/setup --tests", err)
	}
	// A cache that has this kernel and no plug-in.
	tools, cache := t.TempDir(), t.TempDir()
	if err := errors.Join(
		os.Symlink(qemu, filepath.Join(tools, "qemu-system-x86_64")), os.MkdirAll(filepath.Join(cache, "crucible/lab"), 0o755),
		os.Symlink(filepath.Join(store.Dir, "kernel"), filepath.Join(cache, "crucible/lab/kernel")),
	); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Binary(t), "kernel", "compare", "--count", "--threshold", "0.01", "--case", "eventfd", "--json",
		"debian:"+kernel.Release, "debian:"+kernel.Release)
	cmd.Env = append(os.Environ(), "PATH="+tools, "XDG_CACHE_HOME="+cache)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &said)
	}
	var c comparison
	if err := json.Unmarshal(out, &c); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "counting virtual time only: ") || !strings.Contains(said.String(), "\nhint: install gcc") {
		t.Errorf("stderr: %s", &said)
	}
	if len(c.Differences) != 2 {
		t.Fatalf("%+v", c)
	}
	for _, d := range c.Differences {
		if d.Unit != conformance.VirtualTime || d.Before < 1e6 || d.After != d.Before {
			t.Errorf("%+v", d)
		}
	}
}
