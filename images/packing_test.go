package images

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/images/pack"
	"crucible/proto/imagepb"
)

// memory is a file of pages: for each number a page that is the same for the same
// number, of zeros for 0, and for odd ones of noise.
func memory(numbers ...int) []byte {
	b := make([]byte, len(numbers)*pack.PageSize)
	for n, number := range numbers {
		page := b[n*pack.PageSize : (n+1)*pack.PageSize]
		if number%2 == 1 {
			_, _ = rand.NewChaCha8([32]byte{byte(number), byte(number >> 8), byte(number >> 16)}).Read(page)
		} else if number > 0 {
			binary.LittleEndian.PutUint64(page[8*(number%512):], uint64(number))
		}
	}
	return b
}

// span are the numbers from one to another, without the latter.
func span(from, to int) (numbers []int) {
	for n := from; n < to; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

// withMemory makes an image that holds files of pages, pages-1.img and so on.
func withMemory(t testing.TB, s Store, name string, parent *Image, files ...[]byte) *Image {
	t.Helper()
	d, err := s.Draft(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Discard() }()
	if parent != nil {
		link, err := d.BuildOn(parent)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(link, filepath.Join(d.CRIUDir(), ParentLink)); err != nil {
			t.Fatal(err)
		}
	}
	for n, b := range files {
		if err := d.Write(fmt.Sprintf("criu/pages-%d.img", n+1), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Write("criu/pagemap-1.img", []byte("map")), d.Write(Bundle, []byte("{}"))); err != nil {
		t.Fatal(err)
	}
	i, err := d.Commit(context.Background(), &imagepb.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func mustPack(t testing.TB, i *Image) *Packed {
	t.Helper()
	p, err := i.Pack(context.Background(), PackOptions{Workers: 2})
	if err != nil {
		t.Fatalf("pack %s: %v", i.Ref(), err)
	}
	return p
}

// holds says whether a file of pages of an image has this content.
func holds(i *Image, file string, want []byte) error {
	p, err := i.OpenPages(file)
	if err != nil {
		return err
	}
	defer p.Close()
	got := make([]byte, p.Size())
	if n, err := p.ReadAt(got, 0); n < len(got) || err != nil && err != io.EOF {
		return fmt.Errorf("read %d of %d bytes: %w", n, len(got), err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s of %s is another one", file, i.Ref())
	}
	return nil
}

func TestPack(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	one, two := memory(span(0, 300)...), memory(5, 5, 0, 7)
	i := withMemory(t, s, "web", nil, one, two, nil, []byte("no whole page"))
	child := withMemory(t, s, "web", i, memory(9999))
	before, err := os.ReadFile(filepath.Join(i.Dir(), Manifest))
	if err != nil {
		t.Fatal(err)
	}
	p := mustPack(t, i)
	if want := (Packed{Pages: 304, Zero: 2, Known: 3, New: 299, Replaced: 304 * pack.PageSize, Written: p.Written}); *p != want {
		t.Errorf("packed %+v, want %+v", *p, want)
	}
	if p.Written > 170*pack.PageSize {
		t.Errorf("299 pages, half of them empty but for a number, take %d bytes", p.Written)
	}
	for file, want := range map[string][]byte{"criu/pages-1.img": one, "criu/pages-2.img": two, "criu/pages-3.img": nil, "criu/pages-4.img": []byte("no whole page")} {
		if err := holds(i, file, want); err != nil {
			t.Error(err)
		}
		_, err := os.Stat(filepath.Join(i.Dir(), file))
		if packed := len(want) >= pack.PageSize; packed != os.IsNotExist(err) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if again := mustPack(t, i); *again != (Packed{}) {
		t.Errorf("packed again: %+v", *again)
	}
	// Nothing of what others know the image by has changed.
	if after, err := os.ReadFile(filepath.Join(i.Dir(), Manifest)); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the manifest has changed: %v", err)
	}
	for _, one := range []*Image{i, child} {
		if err := one.Verify(t.Context(), VerifyOptions{}); err != nil {
			t.Error(err)
		}
	}
	if other := mustPack(t, withMemory(t, s, "db", nil, memory(span(100, 310)...))); other.New != 10 || other.Known != 200 {
		t.Errorf("of 210 pages 10 are new, not %+v", *other)
	}
}

func TestPackDamaged(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	numbers := span(1, 400)
	good := memory(numbers...)
	i := withMemory(t, s, "web", nil, good)
	// A plain file that has changed is not made right by packing it.
	spoil(t, filepath.Join(i.Dir(), "criu/pages-1.img"), func(b []byte) []byte { b[100] ^= 1; return b })
	if _, err := i.Pack(t.Context(), PackOptions{}); !errors.Is(err, Damaged) || !strings.Contains(err.Error(), "stays as it is") {
		t.Errorf("packed a damaged image: %v", err)
	}
	if _, err := os.Stat(filepath.Join(i.Dir(), "criu/pages-1.img")); err != nil {
		t.Errorf("a damaged image has lost its pages: %v", err)
	}
	if i.isPacked("criu/pages-1.img") {
		t.Error("a damaged image is packed")
	}
	spoil(t, filepath.Join(i.Dir(), "criu/pages-1.img"), func(b []byte) []byte { b[100] ^= 1; return b })
	mustPack(t, i)

	ids, err := s.packs().List()
	if err != nil || len(ids) < 1 {
		t.Fatalf("packs %v, %v", ids, err)
	}
	path := s.packs().Path(ids[0])
	index := filepath.Join(i.Dir(), "packed/pages-1.index")
	for _, c := range []struct {
		what, file string
		change     func([]byte) []byte
		say        string
	}{
		{"a bit in a frame", path, func(b []byte) []byte { b[len(b)/2] ^= 4; return b }, "criu/pages-1.img is packed, and " + path + " has changed: its frame"},
		{"a bit in the table", path, func(b []byte) []byte { b[len(b)-100] ^= 4; return b }, path + " has changed: the digest of its table"},
		{"a short pack", path, func(b []byte) []byte { return b[:len(b)-10] }, path + " has changed"},
		{"no pack", path, nil, path + " is missing"},
		{"a bit in the index", index, func(b []byte) []byte { b[30] ^= 4; return b }, "packed/pages-1.index has changed: its digest"},
		{"no index", index, nil, "criu/pages-1.img is missing"},
	} {
		t.Run(c.what, func(t *testing.T) {
			whole, err := os.ReadFile(c.file)
			if err != nil {
				t.Fatal(err)
			}
			restoreFile := func() {
				if err := errors.Join(os.RemoveAll(c.file), os.WriteFile(c.file, whole, 0o400)); err != nil {
					t.Fatal(err)
				}
			}
			defer restoreFile()
			if c.change == nil {
				if err := os.Remove(c.file); err != nil {
					t.Fatal(err)
				}
			} else {
				spoil(t, c.file, c.change)
			}
			if err := i.Verify(t.Context(), VerifyOptions{}); !errors.Is(err, Damaged) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("verify: %v, want %q", err, c.say)
			}
			if c.what == "no index" {
				return // then nothing says that it is packed
			}
			if _, err := i.View(t.Context(), ViewOptions{}); !errors.Is(err, Damaged) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("view: %v, want %q", err, c.say)
			}
			if left := drafts(t, s); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if err := os.WriteFile(filepath.Join(i.Dir(), "packed/pages-9.index"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := i.Verify(t.Context(), VerifyOptions{}); !errors.Is(err, Damaged) || !strings.Contains(err.Error(), "packed/pages-9.index does not belong to it") {
		t.Errorf("an index too many: %v", err)
	}
}

// Whoever reads an image by the names of its files keeps it plain.
func TestPackInUse(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	i := withMemory(t, s, "web", nil, memory(1, 2, 3))
	child := withMemory(t, s, "web", i, memory(4))
	for _, holder := range []*Image{i, child} {
		hold, err := holder.Hold()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := i.Pack(t.Context(), PackOptions{}); !errors.Is(err, InUse) {
			t.Errorf("packed while %s is held: %v", holder.Ref(), err)
		}
		if i.isPacked("criu/pages-1.img") {
			t.Errorf("the plain pages are gone while %s is held", holder.Ref())
		}
		hold.Close()
	}
	// What is there twice is finished by a prune.
	p, err := s.Prune(t.Context(), PruneOptions{DryRun: true})
	if err != nil || p.Freed < 3*pack.PageSize || i.isPacked("criu/pages-1.img") {
		t.Errorf("dry run: %+v, %v", p, err)
	}
	if p, err = s.Prune(t.Context(), PruneOptions{}); err != nil || p.Freed < 3*pack.PageSize {
		t.Errorf("prune: %+v, %v", p, err)
	}
	if !i.isPacked("criu/pages-1.img") {
		t.Error("not packed after a prune")
	}
	if err := i.Verify(t.Context(), VerifyOptions{}); err != nil {
		t.Error(err)
	}
}

func TestView(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	var all []*Image
	var content [][]byte
	for n := range 3 {
		content = append(content, memory(append(span(n*50, n*50+80), 0, 0, 0)...))
		var parent *Image
		if n > 0 {
			parent = all[n-1]
		}
		all = append(all, withMemory(t, s, "web", parent, content[n]))
	}
	v, err := all[2].View(t.Context(), ViewOptions{})
	if err != nil || v.CRIUDir() != all[2].CRIUDir() {
		t.Fatalf("of plain images: %v, %v", v, err)
	}
	if dir, lock := v.Temporary(); dir != "" || lock != nil {
		t.Errorf("of plain images: %q is temporary", dir)
	}
	mustPack(t, all[1]) // the one in the middle only
	if v, err = all[2].View(t.Context(), ViewOptions{}); err != nil {
		t.Fatal(err)
	}
	dir := v.CRIUDir()
	for n := 2; n >= 0; n-- {
		b, err := os.ReadFile(filepath.Join(dir, "pages-1.img"))
		if err != nil || !bytes.Equal(b, content[n]) {
			t.Errorf("pages of web@%d: %d bytes, %v", n+1, len(b), err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "pagemap-1.img")); err != nil || string(b) != "map" {
			t.Errorf("pagemap of web@%d: %q, %v", n+1, b, err)
		}
		dir = filepath.Join(dir, ParentLink)
	}
	var unpacked, linked unix.Stat_t
	base, _ := v.Temporary()
	if err := errors.Join(unix.Stat(filepath.Join(base, "2/criu/pages-1.img"), &unpacked), unix.Stat(filepath.Join(base, "1/criu/pages-1.img"), &linked)); err != nil {
		t.Fatal(err)
	}
	if linked.Nlink != 2 {
		t.Error("a plain file was copied")
	}
	if room := 81 * pack.PageSize; unpacked.Blocks*512 > int64(room) || unpacked.Mode&0o777 != 0o444 {
		t.Errorf("unpacked: %d bytes on disk for %d, mode %o", unpacked.Blocks*512, room, unpacked.Mode)
	}
	// The next command does not take it for a leftover; Close leaves nothing.
	s.sweep()
	if _, err := os.Stat(v.CRIUDir()); err != nil {
		t.Error(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	// One that was left is swept once nobody has its lock any more.
	if v, err = all[2].View(t.Context(), ViewOptions{}); err != nil {
		t.Fatal(err)
	}
	_, lock := v.Temporary()
	theirs, err := unix.Dup(int(lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	v.Leave()
	s.sweep()
	if left := drafts(t, s); len(left) != 1 {
		t.Errorf("swept while its lock was held: %v", left)
	}
	unix.Close(theirs)
	s.sweep()
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("not swept: %v", left)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := all[2].View(cancelled, ViewOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("left behind by a cancelled one: %v", left)
	}
}

func TestUsage(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	if u, err := s.Usage(); err != nil || u.Total() != 0 {
		t.Errorf("of nothing: %+v, %v", u, err)
	}
	noise := func(from, to int) (numbers []int) {
		for n := from; n < to; n++ {
			numbers = append(numbers, 2*n+1)
		}
		return numbers
	}
	mustPack(t, withMemory(t, s, "db", nil, memory(noise(0, 100)...)))
	mustPack(t, withMemory(t, s, "web", nil, memory(noise(50, 150)...)))
	mustPack(t, withMemory(t, s, "web", nil, memory(noise(50, 170)...), memory(noise(160, 170)...)))
	withMemory(t, s, "web", nil, memory(noise(0, 10)...))
	u, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	pages := func(bytes int64) int64 { return bytes / pack.PageSize } // noise is kept as it is
	var got []string
	for _, i := range u.Images {
		got = append(got, fmt.Sprintf("%s %d+%d", i.Ref, pages(i.Unique), pages(i.Shared)))
		if i.Packed == (i.Ref.String() == "web@3") || i.Size < 10*pack.PageSize || (i.Files > 10*pack.PageSize) != (i.Ref.String() == "web@3") {
			t.Errorf("%+v", i)
		}
	}
	for _, c := range u.Containers {
		got = append(got, fmt.Sprintf("%s(%d) %d+%d", c.Name, c.Images, pages(c.Unique), pages(c.Shared)))
	}
	want := []string{"db@1 50+50", "web@1 0+100", "web@2 20+100", "web@3 0+0", "db(1) 50+50", "web(3) 70+50"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if u.Packs != 3 || pages(u.PackBytes) < 170 || pages(u.PackBytes) > 172 || u.Unused != 0 {
		t.Errorf("packs: %+v", u)
	}
	if err := s.Remove(t.Context(), "db@1"); err != nil {
		t.Fatal(err)
	}
	if u, err = s.Usage(); err != nil || pages(u.Unused) != 50 {
		t.Errorf("after a removal %d pages are unused, not 50: %v", pages(u.Unused), err)
	}
}
