package criu

import (
	"context"
	"errors"
	"testing"
	"time"

	"crucible/container/testenv"
)

// lazyCRIU is a CRIU on a kernel that can bring pages later.
func lazyCRIU(t *testing.T) *CRIU {
	t.Helper()
	c := theCRIU(t)
	if _, err := c.run(t.Context(), "check", "--feature", "uffd-noncoop"); err != nil {
		testenv.Lacks(t, "userfaultfd", testenv.KernelOption("CONFIG_USERFAULTFD"))
	}
	return c
}

func anyPid(int) error { return nil }

// A program that is restored without its memory gets all of it, and goes on
// when the loader has ended.
func TestLazyPages(t *testing.T) {
	c := lazyCRIU(t)
	o, _, beats := restoreFrom(t, c, "memory:48")
	work := openDir(t, t.TempDir())
	o.Work, o.LazyPages = work, true
	loader, err := c.LazyPages(t.Context(), o.Images, work, anyPid)
	fatal(t, err)
	before := load(beats, 0)
	res, err := start(t, c, StartOptions{}).Restore(t.Context(), o, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, logOf(work))
	}
	defer reapTree(res.Pid)
	if !endsWithin(loader, patience) {
		t.Fatal("the loader does not end")
	}
	done := load(beats, 0)
	for end := time.Now().Add(patience); load(beats, 0) < done+2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("rounds of checking: %d before, %d when loaded, %d now", before, done, load(beats, 0))
		}
	}
	if bad := load(beats, 1); bad != 0 {
		t.Errorf("%d pages are not what they were", bad)
	}
}

func TestLazyPagesErrors(t *testing.T) {
	c := theCRIU(t)
	empty := openDir(t, t.TempDir())
	_, err := c.LazyPages(t.Context(), empty, empty, anyPid)
	var e *Error
	if !errors.As(err, &e) || e.Op != "lazy-pages" || e.Cause == "" {
		t.Errorf("an empty directory: %v", err)
	}
	t.Log(err)
}

// The loader does not end with the context of its start.
func TestLazyPagesContext(t *testing.T) {
	c := lazyCRIU(t)
	o, _, _ := restoreFrom(t, c, "memory:1")
	ctx, cancel := context.WithCancel(t.Context())
	loader, err := c.LazyPages(ctx, o.Images, o.Images, anyPid)
	fatal(t, err)
	cancel()
	if endsWithin(loader, 50*time.Millisecond) {
		t.Error("the loader ended with the context")
	}
	loader.Kill()
	if !endsWithin(loader, patience) {
		t.Error("a killed loader goes on")
	}
}

func endsWithin(l *Loader, limit time.Duration) bool {
	for end := time.Now().Add(limit); lives(l.process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
