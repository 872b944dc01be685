package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// fill puts something into a draft.
func fill(t testing.TB, d *Draft) {
	t.Helper()
	if err := d.Put(Timeline, &imagepb.Timeline{StartedUnixNs: 5}); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(Bundle, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.CRIUDir(), "pages-1.img"), make([]byte, 700_000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../1/criu", filepath.Join(d.CRIUDir(), "parent")); err != nil {
		t.Fatal(err)
	}
}

func makeImage(t testing.TB, s Store, name string, m *imagepb.Manifest) *Image {
	t.Helper()
	d, err := s.Draft(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d)
	i, err := d.Commit(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// drafts lists what lies in .drafts.
func drafts(t testing.TB, s Store) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(s.drafts())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestImage(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	i := makeImage(t, s, "web", &imagepb.Manifest{LeftRunning: true, CreatedUnixNs: 77})
	if i.Ref() != "web@1" || i.Dir() != filepath.Join(s.Dir, "web", "1") || i.Created().UnixNano() != 77 {
		t.Errorf("committed %s in %s", i.Ref(), i.Dir())
	}
	makeImage(t, Store{Dir: s.Dir, Sync: true}, "web", &imagepb.Manifest{})
	makeImage(t, s, "db", &imagepb.Manifest{})
	for ref, want := range map[string]string{"web": "web@2", "web@1": "web@1", "db": "db@1"} {
		i, err := s.Open(ref)
		if err != nil || i.Ref() != want {
			t.Fatalf("Open(%s) = %v, %v", ref, i, err)
		}
		if err := i.Verify(t.Context(), VerifyOptions{}); err != nil {
			t.Errorf("verify %s: %v", ref, err)
		}
		var line imagepb.Timeline
		if err := i.Get(Timeline, &line); err != nil || line.StartedUnixNs != 5 {
			t.Errorf("timeline of %s: %v, %v", ref, &line, err)
		}
		m := i.Manifest
		if m.Format != frame.Edition || m.MinReader != frame.Oldest || m.DigestAlgorithm != "blake3" ||
			len(m.Files) != 4 || i.Size() != 700_000+2+int64(m.Files[3].Size) || m.Name != i.Name || int(m.Number) != i.Number {
			t.Errorf("manifest of %s: %v", ref, m)
		}
	}
	i, err := s.Open("web@1")
	if err != nil || !i.Manifest.LeftRunning {
		t.Errorf("manifest was not kept: %v, %v", i, err)
	}
	all, err := s.List("")
	if err != nil || len(all) != 3 || all[0].Ref() != "db@1" || all[2].Ref() != "web@2" {
		t.Errorf("list: %v, %v", all, err)
	}
	if all, err = s.List("web"); err != nil || len(all) != 2 {
		t.Errorf("list web: %v, %v", all, err)
	}
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWriteOnce(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d)
	for _, file := range []string{Timeline, Manifest, "../x", "/x", ".", "", "criu/../y", "none/x"} {
		if err := d.Write(file, nil); err == nil {
			t.Errorf("wrote %q", file)
		}
	}
	i, err := d.Commit(t.Context(), &imagepb.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create("late"); err == nil {
		t.Error("wrote to a committed draft")
	}
	if _, err := d.Commit(t.Context(), &imagepb.Manifest{}); err == nil {
		t.Error("committed twice")
	}
	if err := d.Discard(); err != nil {
		t.Errorf("discard after commit: %v", err)
	}
	for _, f := range append(i.Manifest.Files, &imagepb.File{Path: Manifest}) {
		info, err := os.Lstat(filepath.Join(i.Dir(), f.Path))
		if err != nil || f.Symlink == "" && info.Mode() != fileMode(f.Path) {
			t.Errorf("%s has mode %v, %v", f.Path, info.Mode(), err)
		}
	}
	if err := i.Verify(t.Context(), VerifyOptions{}); err != nil {
		t.Error(err)
	}
}

func TestDiscard(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	d.Follow()
	fill(t, d)
	for range 2 {
		if err := d.Discard(); err != nil {
			t.Error(err)
		}
	}
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := s.Open("web"); !errors.Is(err, NotFound) {
		t.Errorf("open: %v", err)
	}
	for _, name := range []string{"", "..", "a/b", "web@1"} {
		if _, err := s.Draft(t.Context(), name); err == nil {
			t.Errorf("drafted %q", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Draft(ctx, "web"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled draft: %v", err)
	}
}

// A commit that cannot be leaves a draft that can be discarded, no image and
// no number spent.
func TestCommitCancelled(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Commit(ctx, &imagepb.Manifest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	if numbers, err := s.Numbers("web"); err != nil || len(numbers) != 0 {
		t.Errorf("images: %v, %v", numbers, err)
	}
	// Nor is it a lost draft: it can be committed still.
	if i, err := d.Commit(t.Context(), &imagepb.Manifest{}); err != nil || i.Number != 1 {
		t.Errorf("second commit: %v, %v", i, err)
	}
}

func TestSweep(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	live, err := s.Draft(t.Context(), "live")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Discard()
	dead, err := s.Draft(t.Context(), "dead")
	if err != nil {
		t.Fatal(err)
	}
	fill(t, dead)
	dead.lock.Close() // as the kernel does for who dies
	// Killed before there was a lock, and after the image had left.
	for _, dir := range []string{"nolock/image/criu", "gone"} {
		if err := os.MkdirAll(filepath.Join(s.drafts(), dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.drafts(), "gone", "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := len(drafts(t, s)); got != 4 {
		t.Fatalf("%d drafts", got)
	}
	if _, err := s.Open("web"); !errors.Is(err, NotFound) {
		t.Errorf("open: %v", err)
	}
	if got := drafts(t, s); len(got) != 1 || !strings.HasPrefix(got[0], "live-") {
		t.Errorf("after the sweep: %v", got)
	}
}

func TestManyCommits(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				d, err := s.Draft(context.Background(), "web")
				if err != nil {
					t.Error(err)
					return
				}
				if err := d.Put(Mounts, &imagepb.Mounts{}); err != nil {
					t.Error(err)
				}
				if _, err := d.Commit(context.Background(), &imagepb.Manifest{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	all, err := s.List("web")
	if err != nil || len(all) != writers*each {
		t.Fatalf("%d images, %v", len(all), err)
	}
	for n, i := range all {
		if i.Number != n+1 || int(i.Manifest.Number) != n+1 {
			t.Errorf("image %d is %s and says %d", n, i.Ref(), i.Manifest.Number)
		}
	}
}

func TestRemove(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	first := makeImage(t, s, "web", &imagepb.Manifest{})
	makeImage(t, s, "clone", &imagepb.Manifest{})
	third := makeImage(t, s, "web", &imagepb.Manifest{})
	hold, err := third.Hold()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "web"); !errors.Is(err, InUse) {
		t.Errorf("removed what is held: %v", err)
	}
	hold.Close()
	for _, ref := range []string{"web@2", "clone@1", "web@1"} {
		if err := s.Remove(t.Context(), ref); err != nil {
			t.Error(err)
		}
	}
	if names, err := s.Names(); err != nil || len(names) != 0 {
		t.Errorf("names: %v, %v", names, err)
	}
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := s.Remove(t.Context(), "web@1"); !errors.Is(err, NotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := first.Hold(); err == nil {
		t.Error("held what is removed")
	}
	if err := first.Verify(t.Context(), VerifyOptions{}); !errors.Is(err, NotFound) {
		t.Errorf("verified what is removed: %v", err)
	}
}

func TestParseRef(t *testing.T) {
	for in, want := range map[string]Ref{"web": {"web", 0}, "web@1": {"web", 1}, "a.b-c_d@2147483647": {"a.b-c_d", 1<<31 - 1}} {
		got, err := ParseRef(in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("ParseRef(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "@1", "web@", "web@0", "web@01", "web@+1", "web@-1", "web@1@2", "web@x", "../web", "web@99999999999", "web@1 "} {
		if got, err := ParseRef(in); err == nil {
			t.Errorf("ParseRef(%q) = %v", in, got)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("web@1")
	f.Fuzz(func(t *testing.T, in string) {
		if r, err := ParseRef(in); err == nil && r.String() != in {
			t.Errorf("ParseRef(%q) = %q", in, r)
		} else if err != nil && strings.ContainsAny(fmt.Sprint(err), "\n\r\x00\x1b") {
			t.Errorf("ParseRef(%q): control characters in %q", in, err)
		}
	})
}

// A newer edition that says that this one's readers will do is opened.
func TestNewerButReadable(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	makeImage(t, s, "web", &imagepb.Manifest{Format: frame.Edition + 3, MinReader: frame.Edition})
	i, err := s.Open("web")
	if err != nil || i.Manifest.Format != frame.Edition+3 {
		t.Fatal(i, err)
	}
	makeImage(t, s, "web", &imagepb.Manifest{Format: frame.Edition + 3, MinReader: frame.Edition + 2})
	if _, err := s.Open("web"); !errors.Is(err, NewerFormat) || strings.Contains(err.Error(), "\n") {
		t.Errorf("newer: %v", err)
	}
}
