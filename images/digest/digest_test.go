package digest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/images/blake3"
)

func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	r.Read(b)
	return b
}

func write(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	want := map[string][]byte{
		"empty":            nil,
		"small":            content(1, 100),
		"criu/pages-1.img": content(2, 40*blake3.BlockSize+17),
		"criu/one":         content(3, blake3.BlockSize),
		"criu/two":         content(4, blake3.BlockSize+1),
		"criu/unit":        content(5, unitBlocks*blake3.BlockSize),
		"deep/er/x":        content(6, 5000),
	}
	for name, b := range want {
		write(t, dir, name, b)
	}
	write(t, dir, "manifest.pb", []byte("not me"))
	if err := os.Symlink("../1/criu", filepath.Join(dir, "criu", "parent")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "hollow"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, workers := range []int{0, 1, 5} {
		files, err := Tree(t.Context(), dir, Options{Workers: workers, Only: func(path string) bool { return path != "manifest.pb" }})
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != len(want)+1 {
			t.Errorf("%d files, want %d", len(files), len(want)+1)
		}
		for i, f := range files {
			if i > 0 && files[i-1].Path >= f.Path {
				t.Errorf("%s comes before %s", files[i-1].Path, f.Path)
			}
			if f.Path == "criu/parent" {
				if f.Link != "../1/criu" || f.Size != 0 || f.Sum != [32]byte{} {
					t.Errorf("link is %+v", f)
				}
				continue
			}
			b, ok := want[f.Path]
			if !ok || f.Size != int64(len(b)) || f.Sum != blake3.Sum(b) || f.Link != "" {
				t.Errorf("%s: %d bytes, %x, link %q", f.Path, f.Size, f.Sum, f.Link)
			}
		}
	}
}

func TestTreeErrors(t *testing.T) {
	dir := t.TempDir()
	if files, err := Tree(t.Context(), dir, Options{}); err != nil || len(files) != 0 {
		t.Errorf("empty directory: %v, %v", files, err)
	}
	if _, err := Tree(t.Context(), dir+"/none", Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	write(t, dir, "big", content(1, 20*blake3.BlockSize))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Tree(ctx, dir, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Tree(t.Context(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "fifo") {
		t.Errorf("a FIFO: %v", err)
	}
}

// A file that shrinks between the listing and the reading.
func TestShrunk(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "x", content(1, 1000))
	tr := tree{dir: dir, files: []File{{Path: "x", Size: 2000}}, values: make([][]blake3.Value, 1)}
	err := tr.work(t.Context(), tr.plan(nil), 1)
	if err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("shrunk file: %v", err)
	}
}

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "criu"), 0o700); err != nil {
		t.Fatal(err)
	}
	all := content(9, 30*blake3.BlockSize+55)
	write(t, dir, "criu/core-1.img", all)
	f := Follow(dir, "criu", "pages-*.img")
	file, err := os.Create(filepath.Join(dir, "criu", "pages-1.img"))
	if err != nil {
		t.Fatal(err)
	}
	for rest := all; len(rest) > 0; {
		n := min(len(rest), 100_001)
		if _, err := file.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	file.Close()
	done := f.Stop()
	for name, v := range done {
		if name != "criu/pages-1.img" || len(v) > 30 {
			t.Errorf("followed %s for %d blocks", name, len(v))
		}
	}
	files, err := Tree(t.Context(), dir, Options{Followed: done})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Sum != blake3.Sum(all) {
			t.Errorf("%s is %x", f.Path, f.Sum)
		}
	}
	f.Stop()
}

// What a follower hashed is used, and no more of it than the file has.
func TestFollowed(t *testing.T) {
	dir := t.TempDir()
	b := content(3, 4*blake3.BlockSize)
	write(t, dir, "x", b)
	var v []blake3.Value
	for n := range 4 {
		v = append(v, blake3.Block(b[n*blake3.BlockSize:(n+1)*blake3.BlockSize], uint64(n)))
	}
	for _, size := range []int{4 * blake3.BlockSize, 4*blake3.BlockSize - 1, 2*blake3.BlockSize + 5, 2 * blake3.BlockSize, 10, 0} {
		if err := os.Truncate(filepath.Join(dir, "x"), int64(size)); err != nil {
			t.Fatal(err)
		}
		files, err := Tree(t.Context(), dir, Options{Followed: Followed{"x": v, "gone": v}})
		if err != nil || files[0].Sum != blake3.Sum(b[:size]) {
			t.Errorf("%d bytes: %v, %v", size, files, err)
		}
	}
	// The values are trusted: other ones give another digest.
	write(t, dir, "x", bytes.Repeat([]byte{0}, len(b)))
	files, err := Tree(t.Context(), dir, Options{Followed: Followed{"x": v}})
	if err != nil || files[0].Sum != blake3.Sum(b) {
		t.Errorf("followed values were not used: %v, %v", files, err)
	}
}
