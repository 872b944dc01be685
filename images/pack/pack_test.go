package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pages makes a file of pages from one letter for each: "." is a page of zeros,
// a capital letter one that does not compress.
func pages(letters string) []byte {
	var b []byte
	for _, l := range []byte(letters) {
		page := make([]byte, PageSize)
		switch {
		case l >= 'A' && l <= 'Z':
			_, _ = rand.NewChaCha8([32]byte{l}).Read(page)
		case l != '.':
			for i := range page {
				page[i] = l + byte(i%7)
			}
		}
		b = append(b, page...)
	}
	return b
}

func contents(files ...[]byte) (out []Content) {
	for _, f := range files {
		out = append(out, Content{bytes.NewReader(f), int64(len(f))})
	}
	return out
}

// add packs files and reads them back.
func add(t *testing.T, d Dir, files ...[]byte) ([]*Index, Added) {
	t.Helper()
	indexes, added, err := d.Add(t.Context(), contents(files...), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for n, x := range indexes {
		if err := same(d, x, files[n]); err != nil {
			t.Fatalf("file %d: %v", n, err)
		}
	}
	return indexes, added
}

// same reads a file by its index, after that has been written and read.
func same(d Dir, x *Index, want []byte) error {
	x, err := Decode(x.Encode())
	if err != nil {
		return err
	}
	r, err := d.Open(x)
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Size() != int64(len(want)) {
		return fmt.Errorf("size %d, want %d", r.Size(), len(want))
	}
	got := make([]byte, len(want))
	if n, err := r.ReadAt(got, 0); n != len(got) || err != nil {
		return fmt.Errorf("read %d of %d: %w", n, len(got), err)
	}
	if !bytes.Equal(got, want) {
		return errors.New("another content")
	}
	return nil
}

func TestAdd(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "packs"))
	for _, step := range []struct {
		files []string
		want  Added // without the pack
	}{
		{[]string{""}, Added{}},
		{[]string{"..."}, Added{Pages: 3, Zero: 3}},
		{[]string{"abcAB", "a..b"}, Added{Pages: 9, Zero: 2, Known: 2, New: 5}},
		{[]string{"xxxx"}, Added{Pages: 4, Known: 3, New: 1}},
		{[]string{"BAcbax"}, Added{Pages: 6, Known: 6}},
		{[]string{strings.Repeat("abcdefgh", 40) + "CDE"}, Added{Pages: 323, Known: 315, New: 8}},
		{[]string{strings.Repeat("A", 65) + strings.Repeat(".", 65)}, Added{Pages: 130, Zero: 65, Known: 65}},
	} {
		var files [][]byte
		for _, f := range step.files {
			files = append(files, pages(f))
		}
		_, got := add(t, d, files...)
		if (got.Bytes != 0) != (got.New != 0) || (got.Pack != ID{}) != (got.New != 0) {
			t.Errorf("%.20q: pack %s of %d bytes for %d pages", step.files, got.Pack, got.Bytes, got.New)
		}
		got.Pack, got.Bytes = ID{}, 0
		if got != step.want {
			t.Errorf("%.20q: %+v, want %+v", step.files, got, step.want)
		}
	}
	if ids, err := d.List(); err != nil || len(ids) != 3 {
		t.Errorf("packs %v, %v; want 3", ids, err)
	}
	if _, _, err := d.Add(t.Context(), contents(make([]byte, PageSize+1)), Options{}); err == nil {
		t.Error("packed a part of a page")
	}
}

// Compressible pages become small, others do not become big.
func TestCompression(t *testing.T) {
	d := Dir(t.TempDir())
	_, small := add(t, d, pages("abcdefghijklmnopqrstuvwxyz"))
	if small.Bytes > 26*PageSize/10 {
		t.Errorf("26 pages of patterns take %d bytes", small.Bytes)
	}
	_, big := add(t, d, pages("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
	if over := big.Bytes - 26*PageSize; over < 0 || over > 26*(sumSize+4)+8+headLen+footLen {
		t.Errorf("26 pages of noise take %d bytes more", over)
	}
}

// random is a file of pages drawn from a number of them, in runs.
func random(r *rand.Rand, most, kinds int) []byte {
	var b []byte
	for n := r.IntN(most); len(b) < n*PageSize; {
		kind := uint64(r.IntN(kinds))
		for range 1 + r.IntN(9) {
			page := make([]byte, PageSize)
			if kind%5 != 0 {
				binary.LittleEndian.PutUint64(page[kind%(PageSize-8):], kind)
			}
			if kind%3 == 1 {
				_, _ = rand.NewChaCha8([32]byte{byte(kind), byte(kind >> 8)}).Read(page)
			}
			b = append(b, page...)
			kind++
		}
	}
	return b
}

func TestRandomReads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	d := Dir(t.TempDir())
	var file []byte
	var x *Index
	for range 6 {
		file = random(r, 3000, 2000)
		indexes, _ := add(t, d, file)
		x = indexes[0]
	}
	reader, err := d.Open(x)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for range 500 {
		at := r.Int64N(int64(len(file)) + 100)
		got := make([]byte, r.IntN(10*PageSize))
		n, err := reader.ReadAt(got, at)
		want := file[min(at, int64(len(file))):]
		if len(want) < len(got) && err != io.EOF || len(want) >= len(got) && err != nil {
			t.Fatalf("read %d bytes at %d of %d: %d, %v", len(got), at, len(file), n, err)
		}
		if want = want[:min(len(want), len(got))]; !bytes.Equal(got[:n], want) {
			t.Fatalf("read %d bytes at %d of %d: other bytes", len(got), at, len(file))
		}
	}
}

// Every bit of a pack and of an index counts.
func TestFlippedBits(t *testing.T) {
	d := Dir(t.TempDir())
	file := pages(strings.Repeat("abcdefg", 10) + "ABC...")
	indexes, added := add(t, d, file)
	path := d.Path(added.Pack)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// Of the pages that do not compress not every bit.
	step := 1
	for bit := 0; bit < len(whole)*8; bit += step {
		spoilt := bytes.Clone(whole)
		spoilt[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, spoilt, 0o600); err != nil {
			t.Fatal(err)
		}
		var damaged *Error
		if err := same(d, indexes[0], file); !errors.As(err, &damaged) || damaged.Path != path {
			t.Fatalf("bit %d of %d: %v", bit, len(whole)*8, err)
		}
		step = 1 + bit%41
	}
	for _, short := range []int{0, 7, headLen + footLen, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(path, whole[:short], 0o600); err != nil {
			t.Fatal(err)
		}
		var damaged *Error
		if err := same(d, indexes[0], file); !errors.As(err, &damaged) {
			t.Errorf("%d of %d bytes: %v", short, len(whole), err)
		}
	}
	b := indexes[0].Encode()
	for bit := range len(b) * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := Decode(b); err == nil {
			t.Errorf("index with bit %d flipped: read", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func TestMissingPack(t *testing.T) {
	d := Dir(t.TempDir())
	indexes, added := add(t, d, pages("abc"))
	if err := d.Remove(added.Pack); err != nil {
		t.Fatal(err)
	}
	var missing *Error
	if _, err := d.Open(indexes[0]); !errors.As(err, &missing) || !missing.Missing {
		t.Errorf("open: %v", err)
	}
	// What was in it is packed again.
	if _, again := add(t, d, pages("abc")); again.New != 3 {
		t.Errorf("packed %d pages again, want 3", again.New)
	}
}

// A damaged pack is not built upon.
func TestDamagedPackIsNotUsed(t *testing.T) {
	d := Dir(t.TempDir())
	_, added := add(t, d, pages("abc"))
	path := d.Path(added.Pack)
	if err := errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 100)); err != nil { // also for somebody who is not root
		t.Fatal(err)
	}
	if _, again := add(t, d, pages("abc")); again.New != 3 {
		t.Errorf("%+v, want 3 new pages", again)
	}
}

func FuzzDecode(f *testing.F) {
	d := Dir(f.TempDir())
	for _, letters := range []string{"", "...", "abc..a", "ABab"} {
		indexes, _, err := d.Add(f.Context(), contents(pages(letters)), Options{})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(indexes[0].Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// The digest keeps nearly all away: it is made right.
		x, err := Decode(sealed(b))
		if err != nil {
			return
		}
		y, err := Decode(x.Encode())
		if err != nil || y.Size != x.Size || len(y.runs) > len(x.runs) {
			t.Errorf("encoded and decoded again: %+v, %v; was %+v", y, err, x)
		}
		if r, err := d.Open(x); err == nil {
			_, _ = r.ReadAt(make([]byte, 3*PageSize), 1)
			_ = r.Close()
		}
	})
}
