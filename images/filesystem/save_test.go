package filesystem

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
	"crucible/proto/imagepb"
)

const upper = imagepb.ArchiveKind_ARCHIVE_KIND_OVERLAY_UPPER

func TestRoundTrip(t *testing.T) {
	for from, dir := range disks(t) {
		src := filepath.Join(dir, "src")
		must(t, os.Mkdir(src, 0o711))
		zoo(t, src)
		var archive bytes.Buffer
		saved, err := Save(t.Context(), src, &archive, SaveOptions{})
		must(t, err)
		if archive.Len() > 2<<20 {
			t.Errorf("the archive has %d bytes: holes were saved as zeros", archive.Len())
		}
		for to, dir := range disks(t) {
			t.Run(from+" to "+to, func(t *testing.T) {
				dst := filepath.Join(dir, "dst")
				must(t, os.Mkdir(dst, 0o700))
				loaded, err := Load(t.Context(), bytes.NewReader(archive.Bytes()), dst)
				if err != nil && strings.Contains(err.Error(), "from Linux 6.6 on") {
					testenv.Skip(t, "%v", err)
				}
				must(t, err)
				if loaded != saved || saved.Entries < 20 {
					t.Errorf("saved %+v, loaded %+v", saved, loaded)
				}
				compareTrees(t, dst, src)
				var again bytes.Buffer
				if _, err := Save(t.Context(), dst, &again, SaveOptions{}); err != nil || from == to && !bytes.Equal(again.Bytes(), archive.Bytes()) {
					t.Errorf("the loaded tree gives another archive (%d and %d bytes), %v", again.Len(), archive.Len(), err)
				}
				if os.Geteuid() != 0 {
					must(t, os.Chmod(filepath.Join(dst, "closed"), 0o700))
				}
			})
		}
	}
}

// An empty tree is one entry.
func TestEmpty(t *testing.T) {
	var archive bytes.Buffer
	s, err := Save(t.Context(), t.TempDir(), &archive, SaveOptions{Kind: upper})
	if err != nil || s.Entries != 1 || archive.Len() > 4096 {
		t.Errorf("%+v, %d bytes, %v", s, archive.Len(), err)
	}
}

// Other programs can read what has no holes.
func TestIsTar(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "x"), []byte("hello"), 0o640))
	var archive bytes.Buffer
	_, err := Save(t.Context(), dir, &archive, SaveOptions{})
	must(t, err)
	r := tar.NewReader(&archive)
	h, err := r.Next()
	if err != nil || h.Name != "./" || h.Typeflag != tar.TypeDir {
		t.Errorf("first entry: %+v, %v", h, err)
	}
	h, err = r.Next()
	must(t, err)
	b, err := io.ReadAll(r)
	if err != nil || h.Name != "x" || h.Mode != 0o640 || string(b) != "hello" {
		t.Errorf("second entry: %+v, %q, %v", h, b, err)
	}
}

func TestSaveErrors(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "x"), make([]byte, 300_000), 0o600))
	if _, err := Save(t.Context(), dir+"/none", io.Discard, SaveOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Save(ctx, dir, io.Discard, SaveOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	if _, err := Save(t.Context(), dir, full, SaveOptions{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("full disk: %v", err)
	}
}

// An upper directory that depends on more than what it holds.
func TestIncompleteUpper(t *testing.T) {
	testenv.Root(t)
	for mark, advice := range map[string]string{"trusted.overlay.metacopy": "metacopy=off", "user.overlay.redirect": "redirect_dir=off"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "moved")
		must(t, os.Mkdir(path, 0o700))
		must(t, unix.Setxattr(path, mark, []byte("/x"), 0))
		_, err := Save(t.Context(), dir, io.Discard, SaveOptions{Kind: upper})
		if err == nil || !strings.Contains(err.Error(), advice) || !strings.Contains(err.Error(), "moved") {
			t.Errorf("%s: %v", mark, err)
		}
		if _, err := Save(t.Context(), dir, io.Discard, SaveOptions{}); err != nil {
			t.Errorf("%s in a plain tree: %v", mark, err)
		}
	}
}

// What is mounted inside belongs to other archives; the places stay.
func TestMountPoints(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "pts"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "null"), nil, 0o644))
	unmount := func(name string) { _ = unix.Unmount(filepath.Join(dir, name), unix.MNT_DETACH) }
	if err := unix.Mount("crucible-test", filepath.Join(dir, "pts"), "tmpfs", 0, "mode=700"); err != nil {
		testenv.Skip(t, "mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unmount("pts") })
	must(t, os.WriteFile(filepath.Join(dir, "pts", "hidden"), []byte("x"), 0o600))
	must(t, unix.Mount("/dev/null", filepath.Join(dir, "null"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { unmount("null") })
	// The same filesystem, mounted again below itself: st_dev does not tell.
	must(t, os.Mkdir(filepath.Join(dir, "self"), 0o755))
	must(t, unix.Mount(dir, filepath.Join(dir, "self"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { unmount("self") })
	var archive bytes.Buffer
	s, err := Save(t.Context(), dir, &archive, SaveOptions{})
	must(t, err)
	dst := t.TempDir()
	_, err = Load(t.Context(), &archive, dst)
	must(t, err)
	lines := describeTree(t, dst)
	if s.Entries != 4 || len(lines) != 4 || !strings.Contains(lines[1], `"null" mode=100644`) || !strings.Contains(lines[2], `"pts" mode=40755`) {
		t.Errorf("%+v\n%s", s, strings.Join(lines, "\n"))
	}
}

func BenchmarkSave(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		src, dst := b.TempDir(), filepath.Join(b.TempDir(), "x.tar")
		for b.Loop() {
			_ = os.Remove(dst) // ext4 flushes a file that was truncated and written again
			f, err := os.Create(dst)
			must(b, err)
			_, err = Save(b.Context(), src, f, SaveOptions{Kind: upper})
			must(b, err)
			must(b, f.Close())
		}
	})
	b.Run("1000files", func(b *testing.B) {
		src := b.TempDir()
		for i := range 1000 {
			must(b, os.WriteFile(filepath.Join(src, string(rune('a'+i%26))+strings.Repeat("x", i/26)), make([]byte, 2000), 0o600))
		}
		for b.Loop() {
			_, err := Save(b.Context(), src, io.Discard, SaveOptions{Kind: upper})
			must(b, err)
		}
	})
	b.Run("256MiB", func(b *testing.B) {
		src := b.TempDir()
		must(b, os.WriteFile(filepath.Join(src, "big"), make([]byte, 256<<20), 0o600))
		b.SetBytes(256 << 20)
		for b.Loop() {
			f, err := os.Create("/dev/shm/crucible-bench.tar")
			must(b, err)
			_, err = Save(b.Context(), src, f, SaveOptions{})
			must(b, err)
			must(b, f.Close())
			must(b, os.Remove(f.Name()))
		}
	})
}
