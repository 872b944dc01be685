package archive

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"crucible/images"
	"crucible/proto/imagepb"
)

func newStore(t testing.TB) images.Store {
	t.Helper()
	return images.Store{Dir: filepath.Join(t.TempDir(), "images")}
}

// mixed are bytes of several kinds, some of them zeros.
func mixed(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for at := 0; at < size; at += 64 << 10 {
		part := b[at:min(at+64<<10, size)]
		for i := range part {
			switch at >> 16 % 3 {
			case 0:
				part[i] = byte(r.Uint32())
			case 1:
				part[i] = "crucible "[r.IntN(9)]
			}
		}
	}
	return b
}

// grow makes an image of web with files of these sizes.
func grow(t testing.TB, s images.Store, parent *images.Image, sizes ...int) *images.Image {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := s.Draft(t.Context(), "web")
	must(err)
	must(d.Write(images.Bundle, []byte("{}")))
	must(d.Write("filesystem/root.tar", nil))
	for n, size := range sizes {
		must(d.Write(fmt.Sprintf("criu/pages-%d.img", n+1), mixed(uint64(n), size)))
	}
	if parent != nil {
		link, err := d.BuildOn(parent)
		must(err)
		must(os.Symlink(link, filepath.Join(d.CRIUDir(), images.ParentLink)))
	}
	i, err := d.Commit(t.Context(), &imagepb.Manifest{CreatedUnixNs: 1e18 + 5})
	must(err)
	return i
}

// sizes are on both sides of what blocks and frames end at.
var sizes = []int{0, 1, 511, 512, 256<<10 - 1, 256 << 10, 256<<10 + 1, 1 << 20, frameSize, frameSize + 1, 2*frameSize + 300<<10 + 7}

func exportOf(t testing.TB, i *images.Image, o ExportOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	x, err := Export(t.Context(), i, &b, o)
	if err != nil {
		t.Fatal(err)
	}
	if x.Packed != int64(b.Len()) {
		t.Errorf("wrote %d bytes, says %d", b.Len(), x.Packed)
	}
	return b.Bytes()
}

func plainOf(t testing.TB, packed []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// files reads a tree: paths, contents, modes and links.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			all[name] = info.Mode().String()
		case e.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			all[name] = "-> " + link
			return err
		default:
			b, err := os.ReadFile(path)
			all[name] = info.Mode().String() + string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func same(t *testing.T, a, b *images.Image) {
	t.Helper()
	have, want := files(t, b.Dir()), files(t, a.Dir())
	for name := range want {
		if have[name] != want[name] {
			t.Errorf("%s of %s is not that of %s", name, b.Ref(), a.Ref())
		}
	}
	if len(have) != len(want) {
		t.Errorf("%s has %d files, %s %d", b.Ref(), len(have), a.Ref(), len(want))
	}
	if err := b.Verify(t.Context(), images.VerifyOptions{}); err != nil {
		t.Error(err)
	}
}

func TestRoundTrip(t *testing.T) {
	s := newStore(t)
	first := grow(t, s, nil, sizes...)
	second := grow(t, s, first, 300<<10)
	third := grow(t, s, second, 100)
	packed := exportOf(t, third, ExportOptions{})
	for _, workers := range []int{1, 2, 7} {
		if again := exportOf(t, third, ExportOptions{Workers: workers}); !bytes.Equal(again, packed) {
			t.Errorf("%d workers write something else", workers)
		}
	}
	if len(packed) > len(plainOf(t, packed))*2/3 {
		t.Errorf("%d bytes, of %d", len(packed), len(plainOf(t, packed)))
	}
	for name, archive := range map[string][]byte{"zstd": packed, "plain": plainOf(t, packed)} {
		t.Run(name, func(t *testing.T) {
			other := newStore(t)
			for round := range 2 {
				x, err := Import(t.Context(), other, bytes.NewReader(archive), ImportOptions{Name: "copy"})
				if err != nil {
					t.Fatal(err)
				}
				// The second time the parents are there.
				if x.Image.Ref() != fmt.Sprintf("copy@%d", 3+round) || len(x.Parents) != 2 || x.Known != 2*round {
					t.Errorf("imported %s on %d, of which %d were there", x.Image.Ref(), len(x.Parents), x.Known)
				}
				same(t, third, x.Image)
				chain, err := x.Image.Chain()
				if err != nil || len(chain) != 3 {
					t.Fatal(chain, err)
				}
				same(t, second, chain[1])
				same(t, first, chain[2])
			}
			left(t, other, 4)
		})
	}
}

// left says whether a store has so many images, and nothing that was begun.
func left(t testing.TB, s images.Store, want int) {
	t.Helper()
	all, err := s.List("")
	if err != nil || len(all) != want {
		t.Errorf("%d images are in the store, want %d; %v", len(all), want, err)
	}
	if begun, _ := filepath.Glob(s.Dir + "/.drafts/*"); len(begun) > 0 {
		t.Errorf("left behind: %v", begun)
	}
}

// What is not there must be in the store that it comes to.
func TestAlone(t *testing.T) {
	s := newStore(t)
	first := grow(t, s, nil, 1000)
	second := grow(t, s, first, 10)
	packed := exportOf(t, second, ExportOptions{Alone: true})
	other := newStore(t)
	_, err := Import(t.Context(), other, bytes.NewReader(packed), ImportOptions{})
	var bad *images.Error
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "builds on web@1, which is not there") {
		t.Errorf("without its parent: %v", err)
	}
	left(t, other, 0)
	grow(t, other, nil, 999)
	if _, err = Import(t.Context(), other, bytes.NewReader(packed), ImportOptions{}); err == nil || !strings.Contains(err.Error(), "another image has that number here") {
		t.Errorf("with another parent: %v", err)
	}
	// The chain cannot come to that name either, and says so before it is written.
	_, err = Import(t.Context(), other, bytes.NewReader(exportOf(t, second, ExportOptions{})), ImportOptions{})
	if !errors.Is(err, images.Exists) {
		t.Errorf("to a number that is taken: %v", err)
	}
	left(t, other, 1)
	x, err := Import(t.Context(), s, bytes.NewReader(packed), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, second, x.Image)
	left(t, s, 3)
}

// The seek table is that of zstd's contrib/seekable_format: a skippable frame
// with the two sizes of every frame, and a footer at the very end.
func TestSeekTable(t *testing.T) {
	packed := exportOf(t, grow(t, newStore(t), nil, sizes...), ExportOptions{})
	plain := plainOf(t, packed)
	foot := packed[len(packed)-9:]
	if magic := binary.LittleEndian.Uint32(foot[5:]); magic != 0x8F92EAB1 || foot[4] != 0 {
		t.Fatalf("footer %x", foot)
	}
	n := int(binary.LittleEndian.Uint32(foot))
	table := packed[len(packed)-9-8*n : len(packed)-9]
	head := packed[len(packed)-9-8*n-8:]
	if binary.LittleEndian.Uint32(head) != 0x184D2A5E || int(binary.LittleEndian.Uint32(head[4:])) != len(table)+9 || n < 6 {
		t.Fatalf("head %x, %d frames", head[:8], n)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	at, from, starts := 0, 0, []int{}
	for ; len(table) > 0; table = table[8:] {
		size, unpacked := int(binary.LittleEndian.Uint32(table)), int(binary.LittleEndian.Uint32(table[4:]))
		got, err := z.DecodeAll(packed[at:at+size], nil)
		if err != nil || unpacked > frameSize || !bytes.Equal(got, plain[from:from+unpacked]) {
			t.Fatalf("frame at %d is not %d bytes at %d: %v", at, unpacked, from, err)
		}
		starts = append(starts, from)
		at, from = at+size, from+unpacked
	}
	if from != len(plain) || at != len(packed)-9-8*n-8 {
		t.Errorf("the table ends at %d of %d, %d of %d", at, len(packed), from, len(plain))
	}
	// A big file can be read from the beginning of a frame.
	big := bytes.Index(plain, mixed(uint64(len(sizes)-1), 8<<10))
	if !slices.Contains(starts, big) {
		t.Errorf("the last file is at %d, frames are at %v", big, starts)
	}
}

// A file is written as tar(5) has it, with what tar(1) would make of it.
func TestEntries(t *testing.T) {
	s := newStore(t)
	i := grow(t, s, grow(t, s, nil, 5), 7)
	r := tar.NewReader(bytes.NewReader(plainOf(t, exportOf(t, i, ExportOptions{}))))
	var got []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s", h.FileInfo().Mode(), strings.TrimSpace(h.Name+" "+h.Linkname)))
		if h.Uid+h.Gid != 0 || h.ModTime.Unix() != 1e9 {
			t.Errorf("%+v", h)
		}
	}
	want := []string{"drwx------ web/", "drwx------ web/2/", "-r-------- web/2/manifest.pb", "-r-------- web/2/bundle.json", "drwxr-xr-x web/2/criu/",
		"-r--r--r-- web/2/criu/pages-1.img", "Lrwxrwxrwx web/2/criu/parent ../../1/criu", "drwx------ web/2/filesystem/", "-r-------- web/2/filesystem/root.tar",
		"drwx------ web/1/", "-r-------- web/1/manifest.pb", "-r-------- web/1/bundle.json", "drwxr-xr-x web/1/criu/", "-r--r--r-- web/1/criu/pages-1.img",
		"drwx------ web/1/filesystem/", "-r-------- web/1/filesystem/root.tar"}
	// The manifest's order is bytewise: a parent's link comes behind the pages.
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("entries\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// An image that has changed is not carried on.
func TestExportDamaged(t *testing.T) {
	for _, size := range []int{100, 1 << 20} {
		for _, change := range []func([]byte) []byte{
			func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			func(b []byte) []byte { return b[:len(b)-1] },
			func(b []byte) []byte { return append(b, 0) },
		} {
			i := grow(t, newStore(t), nil, size)
			path := filepath.Join(i.CRIUDir(), "pages-1.img")
			b, err := os.ReadFile(path)
			if err == nil {
				err = errors.Join(os.Remove(path), os.WriteFile(path, change(b), 0o400))
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = Export(t.Context(), i, io.Discard, ExportOptions{})
			if !errors.Is(err, images.Damaged) || !strings.Contains(err.Error(), "criu/pages-1.img") {
				t.Errorf("%v", err)
			}
		}
	}
}
