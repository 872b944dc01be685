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
	basics, err := start(t, c, StartOptions{}).Basics(t.Context())
	fatal(t, err)
	if !basics.LazyPages {
		testenv.Lacks(t, "userfaultfd", testenv.KernelOption("CONFIG_USERFAULTFD"))
	}
	return c
}

// A program that is restored without its memory gets all of it, and goes on
// when the loader has ended.
func TestLazyPages(t *testing.T) {
	c := lazyCRIU(t)
	o, _, beats := restoreFrom(t, c, "memory:48")
	work := openDir(t, t.TempDir())
	o.Work, o.LazyPages = work, true
	loader, err := c.LazyPages(t.Context(), LazyOptions{Images: o.Images, Work: work, LogLevel: 4})
	fatal(t, err)
	before := load(beats, 0)
	res, err := start(t, c, StartOptions{}).Restore(t.Context(), o, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, logOf(work))
	}
	defer reapTree(res.Pid)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := loader.Wait(ctx); err != nil {
		t.Fatal(err)
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
	_, err := c.LazyPages(t.Context(), LazyOptions{Images: empty})
	var e *Error
	if !errors.As(err, &e) || e.Op != "lazy-pages" || e.Cause == "" {
		t.Errorf("an empty directory: %v", err)
	}
	t.Log(err)
	if _, err := c.LazyPages(t.Context(), LazyOptions{Images: empty, Extra: []string{"no-such-option"}}); !errors.As(err, &e) || e.Kind != "option-unknown" {
		t.Errorf("an unknown option: %v", err)
	}
}

// The loader does not end with the context of its start.
func TestLazyPagesContext(t *testing.T) {
	c := lazyCRIU(t)
	o, _, _ := restoreFrom(t, c, "memory:1")
	ctx, cancel := context.WithCancel(t.Context())
	loader, err := c.LazyPages(ctx, LazyOptions{Images: o.Images})
	fatal(t, err)
	cancel()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := loader.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the loader: %v", err)
	}
	loader.Kill()
	if err := loader.Wait(t.Context()); err == nil {
		t.Error("a killed loader gave no error")
	}
}
