package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"crucible/container/testenv"
)

// fakeApt puts an apt-get before the real one, which says what the text says:
// shell, with $@.
func fakeApt(t *testing.T, script string) {
	t.Helper()
	if _, err := os.Stat(helper); err != nil {
		testenv.Skip(t, "needs Debian's apt: %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// sources is what a Debian machine's apt-get answers to indextargets; anything
// else fails as without a network.
const offline = `case "$*" in
*Repo*|*REPO*) printf 'http://mirror.invalid/debian/\tstable\tDebian\t/none:1\n' ;;
*) echo "W: Failed to fetch http://mirror.invalid/x  Temporary failure resolving" >&2; echo "E: no network" >&2; exit 100 ;;
esac
`

func writeIndex(t *testing.T, a *Archive, age time.Duration, packages ...pkg) {
	t.Helper()
	data, err := json.Marshal(index{Updated: time.Now().Add(-age), Packages: packages})
	if err == nil {
		err = os.MkdirAll(a.path("apt"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(a.path("apt", "index.json"), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func somePkg() pkg {
	return pkg{Name: "linux-image-6.12.113+deb13-cloud-amd64", Version: "6.12.113-1", Suite: "stable", Size: 30 << 20}
}

// fillWith writes one file, and counts.
func fillWith(count *atomic.Int32) filling {
	return func(_ context.Context, _ *apt, _ Entry, dir string) error {
		count.Add(1)
		return os.WriteFile(filepath.Join(dir, "vmlinuz"), []byte("kernel"), 0o644)
	}
}

func open(t *testing.T, dir string) (*Archive, *strings.Builder) {
	t.Helper()
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	said := new(strings.Builder)
	a.Progress = func(line string) { fmt.Fprintln(said, line) }
	return a, said
}

func TestGetFillsOnceAndHeals(t *testing.T) {
	fakeApt(t, offline)
	a, said := open(t, t.TempDir())
	writeIndex(t, a, time.Hour, somePkg())
	var count atomic.Int32
	get := func(version string, want int32) string {
		t.Helper()
		_, dir, err := a.get(t.Context(), KernelKind, version, fillWith(&count))
		if err != nil || count.Load() != want {
			t.Fatalf("get(%s): %v, filled %d times, want %d", version, err, count.Load(), want)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "vmlinuz")); err != nil || string(data) != "kernel" {
			t.Fatalf("%q, %v", data, err)
		}
		return dir
	}
	dir := get("6.12", 1)
	get("6.12", 1)
	get("6.12.113+deb13-cloud-amd64", 1)
	for i, damage := range []func(string) error{
		func(file string) error { return os.WriteFile(file, []byte("kerneL"), 0o644) },
		func(file string) error { return os.Truncate(file, 0) },
		os.Remove,
		func(file string) error { return os.WriteFile(file+"2", nil, 0o644) },
		func(file string) error { return os.WriteFile(filepath.Join(dir, contentsFile), []byte("{"), 0o644) },
		func(file string) error { return os.Remove(filepath.Join(dir, contentsFile)) },
		func(file string) error { return os.Symlink("vmlinuz", file+"3") },
	} {
		if err := damage(filepath.Join(dir, "vmlinuz")); err != nil {
			t.Fatal(err)
		}
		get("6.12.113", int32(i+2))
	}
	if !strings.Contains(said.String(), "vmlinuz is not as it was fetched") {
		t.Errorf("progress: %s", said)
	}
	// What is damaged, and gone from the archive, is an error that says so.
	writeIndex(t, a, time.Hour)
	if err := os.Remove(filepath.Join(dir, "vmlinuz")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.get(t.Context(), KernelKind, "6.12", fillWith(&count)); err == nil || !strings.Contains(err.Error(), "not in the archive any more") {
		t.Errorf("%v", err)
	}
}

func TestSealRefusesLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "vmlinuz")); err != nil {
		t.Fatal(err)
	}
	if err := seal(t.Context(), dir, Entry{}); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("%v", err)
	}
}

func TestGetTogether(t *testing.T) {
	fakeApt(t, offline)
	dir := t.TempDir()
	a, _ := open(t, dir)
	writeIndex(t, a, time.Hour, somePkg())
	// What somebody left behind who was killed.
	if err := os.MkdirAll(filepath.Join(dir, KernelKind, unfinished+"x/y"), 0o755); err != nil {
		t.Fatal(err)
	}
	var count atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			a, err := Open(dir)
			if err == nil {
				_, _, err = a.get(t.Context(), KernelKind, "6.12", fillWith(&count))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if count.Load() != 1 {
		t.Errorf("filled %d times, want once", count.Load())
	}
	entries, err := os.ReadDir(filepath.Join(dir, KernelKind))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v, want one directory", entries, err)
	}
}

func TestGetInterrupted(t *testing.T) {
	fakeApt(t, offline)
	a, _ := open(t, t.TempDir())
	writeIndex(t, a, time.Hour, somePkg())
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := a.get(ctx, KernelKind, "6.12", func(ctx context.Context, _ *apt, _ Entry, dir string) error {
		cancel()
		return errors.Join(os.WriteFile(filepath.Join(dir, "vmlinuz"), nil, 0o644), ctx.Err())
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(a.path(KernelKind)); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	// While another has the lock, too.
	lock, err := a.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel = context.WithCancel(t.Context())
	waiting := make(chan struct{})
	other := &Archive{Dir: a.Dir, Progress: func(line string) {
		if strings.HasPrefix(line, "waiting") {
			close(waiting)
		}
	}}
	result := make(chan error)
	go func() {
		_, _, err := other.get(ctx, KernelKind, "6.12", fillWith(new(atomic.Int32)))
		result <- err
	}()
	<-waiting
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWithoutNetwork(t *testing.T) {
	fakeApt(t, offline)
	a, _ := open(t, t.TempDir())
	var count atomic.Int32
	var gone *Unreachable
	if _, _, err := a.get(t.Context(), KernelKind, "6.12", fillWith(&count)); !errors.As(err, &gone) || !strings.Contains(err.Error(), "Temporary failure") {
		t.Errorf("with nothing: %v, want Unreachable", err)
	}
	if _, err := a.List(t.Context()); !errors.As(err, &gone) {
		t.Errorf("List with nothing: %v, want Unreachable", err)
	}
	writeIndex(t, a, time.Hour, somePkg())
	if _, _, err := a.get(t.Context(), KernelKind, "6.12", fillWith(&count)); err != nil {
		t.Fatal(err)
	}
	// An old index, and none at all, with something in the cache.
	for _, age := range []time.Duration{48 * time.Hour, 0} {
		a, said := open(t, a.Dir)
		if age > 0 {
			writeIndex(t, a, age, somePkg())
		} else if err := os.Remove(a.path("apt", "index.json")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.get(t.Context(), KernelKind, "6.12.113", fillWith(&count)); err != nil || said.Len() > 0 {
			t.Errorf("index of %v, exact: %v, said %q", age, err, said)
		}
		if _, _, err := a.get(t.Context(), KernelKind, "6.12", fillWith(&count)); err != nil {
			t.Errorf("index of %v: %v", age, err)
		}
		if age > 0 && !strings.Contains(said.String(), "using the index of") {
			t.Errorf("said %q", said)
		}
		list, err := a.List(t.Context())
		if err != nil || len(list) != 1 || !list[0].Cached {
			t.Errorf("List: %+v, %v", list, err)
		}
	}
	if count.Load() != 1 {
		t.Errorf("filled %d times", count.Load())
	}
}

func TestUnknown(t *testing.T) {
	fakeApt(t, offline)
	a, _ := open(t, t.TempDir())
	writeIndex(t, a, time.Minute, somePkg())
	for version, want := range map[string]string{
		"6.13":   "kernel 6.13: not in the archive; the nearest is 6.12.113",
		"":       "kernel : not in the archive; the nearest is 6.12.113",
		"../../": "kernel ../../: not in the archive; the nearest is 6.12.113",
	} {
		_, err := a.Kernel(t.Context(), version)
		var unknown *Unknown
		if !errors.As(err, &unknown) || err.Error() != want {
			t.Errorf("Kernel(%q): %v", version, err)
		}
	}
	if _, err := a.CRIU(t.Context(), "4.1.1"); err == nil || err.Error() != "CRIU 4.1.1: not in the archive" {
		t.Errorf("CRIU: %v", err)
	}
}

func TestNoApt(t *testing.T) {
	for name, script := range map[string]string{
		"its sources have no Debian archive": `printf 'http://mirror.invalid/other/\tnoble\tUbuntu\t/none:1\n'`,
		"no apt-get":                         "",
	} {
		t.Run(name, func(t *testing.T) {
			if script == "" {
				t.Setenv("PATH", t.TempDir())
			} else {
				fakeApt(t, script)
			}
			a, _ := open(t, t.TempDir())
			_, err := a.Kernel(t.Context(), "6.12")
			var none *NoApt
			if !errors.As(err, &none) || !strings.Contains(err.Error(), name) || !strings.Contains(none.Hint(), "bzImage") {
				t.Errorf("%v, want NoApt, %s", err, name)
			}
		})
	}
}

func TestOpenWithoutHome(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "")
	for _, home := range []string{"", "/proc/nothing"} {
		t.Setenv("HOME", home)
		if os.Geteuid() == 0 {
			continue // that would be /var/cache, of the machine's own
		}
		t.Setenv("TMPDIR", t.TempDir())
		a, err := Open("")
		if err != nil || !strings.HasPrefix(a.Dir, os.TempDir()) {
			t.Fatalf("%v, %v", a, err)
		}
		// Not one that others can write to.
		if err := os.Chmod(filepath.Dir(a.Dir), 0o777); err != nil {
			t.Fatal(err)
		}
		if a, err := Open(""); err == nil {
			t.Errorf("took %s, which is everybody's", a.Dir)
		}
	}
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	if a, err := Open(""); err != nil || a.Dir != filepath.Join(cache, "crucible/lab") {
		t.Errorf("%v, %v", a, err)
	}
}
