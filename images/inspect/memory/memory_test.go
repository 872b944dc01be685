package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"crucible/images"
	"crucible/proto/imagepb"
)

const page = 4096

// header begins a pagemap whose pages are in pages-ID.img.
func header(id uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, commonMagic)
	b = binary.LittleEndian.AppendUint32(b, pagemapMagic)
	return add(b, 1, id)
}

// add appends a message of fields, each a number and a value.
func add(b []byte, fields ...uint64) []byte {
	var m []byte
	for i := 0; i < len(fields); i += 2 {
		m = protowire.AppendTag(m, protowire.Number(fields[i]), protowire.VarintType)
		m = protowire.AppendVarint(m, fields[i+1])
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m)))
	return append(b, m...)
}

// now is an entry as CRIU 4.2 writes it, old as an earlier one.
func now(b []byte, addr, pages, flags uint64) []byte {
	return add(b, 1, addr, 2, 0, 4, flags, 5, pages)
}
func old(b []byte, addr, pages uint64) []byte { return add(b, 1, addr, 2, pages) }

// fill is n pages, each full of one letter of the text.
func fill(text string) (b []byte) {
	for _, c := range []byte(text) {
		b = append(b, bytes.Repeat([]byte{c}, page)...)
	}
	return b
}

// write makes an image of files below criu/.
func write(t testing.TB, s images.Store, parent *images.Image, files map[string][]byte) *images.Image {
	t.Helper()
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Discard() }()
	if parent != nil {
		link, err := d.BuildOn(parent)
		if err == nil {
			err = os.Symlink(link, filepath.Join(d.CRIUDir(), images.ParentLink))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(d.CRIUDir(), name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i, err := d.Commit(t.Context(), &imagepb.Manifest{Writer: &imagepb.Writer{PageSize: page}})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func open(t testing.TB, i *images.Image) *Memory {
	t.Helper()
	m, err := Open(i)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// text is what a space holds, a letter for a page; what lies between runs is "-".
func text(t *testing.T, s *Space) (out string) {
	t.Helper()
	next := uint64(0)
	for _, r := range s.Runs() {
		if next != 0 && r.Addr != next {
			out += "-"
		}
		next = r.end(page)
		if r.Remote {
			out += strings.Repeat("~", int(r.Pages))
			continue
		}
		b := make([]byte, r.Pages*page)
		if _, err := s.ReadAt(b, int64(r.Addr)); err != nil {
			t.Fatal(err)
		}
		for ; len(b) > 0; b = b[page:] {
			if !bytes.Equal(b[:page], fill(string(b[:1]))) {
				t.Errorf("a page of %x is mixed", r.Addr)
			}
			out += string(b[:1])
		}
	}
	return out
}

// chain is the one of criu/include/pagemap.h, and one image more: what each
// image has itself is in capital letters of its own.
func chain(t testing.TB) (images.Store, *images.Image) {
	s := images.Store{Dir: filepath.Join(t.TempDir(), "images")}
	one := old(old(old(header(1), 0x3000, 3), 0xb000, 6), 0x18000, 4)
	i := write(t, s, nil, map[string][]byte{"pagemap-7.img": one, "pages-1.img": fill("ABCDEFGHIJKLM")})
	two := now(now(now(header(5), 0x3000, 2, inParent), 0x5000, 1, present), 0xb000, 4, inParent)
	two = now(now(now(two, 0xf000, 3, present|lazy), 0x17000, 2, present), 0x19000, 3, inParent)
	i = write(t, s, i, map[string][]byte{"pagemap-7.img": two, "pages-5.img": fill("UVWXYZ")})
	three := now(now(now(header(1), 0x3000, 1, present), 0x4000, 2, inParent), 0xd000, 4, inParent)
	three = now(now(three, 0x17000, 5, inParent), 0x1f000, 2, lazy)
	return s, write(t, s, i, map[string][]byte{
		"pagemap-7.img": three, "pages-1.img": fill("0"),
		"pagemap-shmem-9.img": now(header(2), 0, 2, present), "pages-2.img": fill("sh"),
		"pagemap-12.img": header(3), "pages-3.img": nil, "pagemap-x.img": nil, "pagemap-07.img": nil,
	})
}

func TestChain(t *testing.T) {
	store, image := chain(t)
	m := open(t, image)
	if got := m.Pids(); !slices.Equal(got, []int{7, 12}) {
		t.Errorf("pids %v", got)
	}
	if got := m.SharedIDs(); !slices.Equal(got, []uint64{9}) {
		t.Errorf("shared %v", got)
	}
	space, err := m.Process(7)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, space), "0BU-FGVW-YZKLM-~~"; got != want {
		t.Errorf("web@3 holds %s, want %s", got, want)
	}
	layers := ""
	for _, r := range space.Runs() {
		layers += fmt.Sprint(r.Layer)
	}
	if layers != "021"+"21"+"12"+"0" {
		t.Errorf("from layers %s", layers)
	}
	shared, err := m.Shared(9)
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, shared); got != "sh" {
		t.Errorf("shared memory holds %s", got)
	}
	empty, err := m.Shared(10)
	if err != nil || len(empty.Runs()) != 0 {
		t.Errorf("shared memory without pages: %v, %v", empty, err)
	}
	for n, want := range []string{"ABC-DEFGHI-JKLM", "ABU-DEFGVWX-YZKLM"} {
		i, err := store.Open(fmt.Sprintf("web@%d", n+1))
		if err != nil {
			t.Fatal(err)
		}
		s, err := open(t, i).Process(7)
		if err != nil {
			t.Fatal(err)
		}
		if got := text(t, s); got != want {
			t.Errorf("web@%d holds %s, want %s", n+1, got, want)
		}
	}
}

func TestReadAt(t *testing.T) {
	_, image := chain(t)
	m := open(t, image)
	s, err := m.Process(7)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		addr int64
		n    int
		want string
		err  error
	}{
		{0x3000, 2, "00", nil},
		{0x3fff, 2, "0B", nil},
		{0x4ffe, 4, "BBUU", nil},
		{0x5ffe, 4, "UU", &Absent{Addr: 0x6000}},
		{0x2fff, 4, "", &Absent{Addr: 0x2fff}},
		{0x1efff, 1, "", &Absent{Addr: 0x1efff}},
		{0x1f00f, 1, "", &Absent{Addr: 0x1f00f, Remote: true}},
		{-1, 1, "", &Absent{Addr: 1<<64 - 1}},
		{0x3000, 0, "", nil},
	} {
		b := make([]byte, c.n)
		n, err := s.ReadAt(b, c.addr)
		if got := string(b[:n]); got != c.want || fmt.Sprint(err) != fmt.Sprint(c.err) {
			t.Errorf("ReadAt(%x) = %q, %v, want %q, %v", c.addr, got, err, c.want, c.err)
		}
	}
	var got string
	for _, r := range s.Between(0x4001, 0xe001) {
		got += fmt.Sprintf("%x+%d ", r.Addr, r.Pages)
	}
	if got != "4000+1 5000+1 d000+2 " {
		t.Errorf("Between: %s", got)
	}
	if _, err := m.Process(8); !errors.Is(err, images.NotFound) {
		t.Errorf("process 8: %v", err)
	}
}

func TestDamaged(t *testing.T) {
	good := now(header(1), 0x3000, 2, present)
	for name, c := range map[string]struct {
		pagemap []byte
		pages   []byte
		want    string
	}{
		"empty":         {nil, nil, "criu/pagemap-7.img is no pagemap"},
		"another":       {binary.LittleEndian.AppendUint64(nil, 5), nil, "criu/pagemap-7.img is no pagemap"},
		"no head":       {header(1)[:8], nil, "criu/pagemap-7.img is cut off at byte 8"},
		"strange head":  {add(header(1)[:8], 2, 1), nil, "criu/pagemap-7.img has a field, 2, that"},
		"empty head":    {add(header(1)[:8]), nil, "does not say where the pages are"},
		"cut off":       {good[:len(good)-1], fill("ab"), "criu/pagemap-7.img is cut off at byte 14"},
		"missing pages": {good, nil, "criu/pages-1.img is missing"},
		"short pages":   {good, fill("ab")[:2*page-1], "criu/pages-1.img is cut off: it has 8191 bytes"},
		"overlap":       {now(good, 0x4000, 1, present), fill("abc"), "has pages at 4000, behind those that end at 5000"},
		"unaligned":     {now(good, 0x8001, 1, present), fill("abc"), "has an address, 8001, within a page"},
		"too many":      {now(good, 0x8000, 1<<52, present), fill("abc"), "more than there are addresses"},
		"kernel":        {now(good, 1<<63, 1, present), fill("abc"), "more than there are addresses"},
		"flags":         {now(good, 0x8000, 1, present|8), fill("abc"), "has the flags c"},
		"compressed":    {add(good, 1, 0x8000, 2, 1, 6, 100), fill("abc"), "has a field, 6, that this crucible does not know"},
		"no varint":     {append(good, 2, 0, 0, 0, 8, 0x80), fill("ab"), "is damaged (entry at byte "},
		"no parent":     {now(good, 0x8000, 1, inParent), fill("ab"), "criu/pagemap-7.img has the page at 8000 in the image before, which does not have it"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{"pagemap-7.img": c.pagemap}
			if c.pages != nil {
				files["pages-1.img"] = c.pages
			}
			m := open(t, write(t, images.Store{Dir: t.TempDir()}, nil, files))
			_, err := m.Process(7)
			if !errors.Is(err, images.Damaged) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestGapInParent(t *testing.T) {
	s := images.Store{Dir: t.TempDir()}
	i := write(t, s, nil, map[string][]byte{"pagemap-7.img": now(header(1), 0x3000, 2, present), "pages-1.img": fill("ab")})
	i = write(t, s, i, map[string][]byte{"pagemap-7.img": now(header(1), 0x2000, 2, inParent)})
	if _, err := open(t, i).Process(7); err == nil || !strings.Contains(err.Error(), "web@2: criu/pagemap-7.img has the page at 2000") {
		t.Errorf("got %v", err)
	}
}

// A huge run that is in the parent, where it is not, must not cost anything.
func TestHugeCount(t *testing.T) {
	s := images.Store{Dir: t.TempDir()}
	i := write(t, s, nil, map[string][]byte{"pagemap-7.img": now(header(1), 0, 1<<44, inParent)})
	if _, err := open(t, i).Process(7); !errors.Is(err, images.Damaged) {
		t.Errorf("got %v", err)
	}
}

func TestPageSize(t *testing.T) {
	for _, c := range []struct {
		w    *imagepb.Writer
		want uint64
	}{
		{&imagepb.Writer{PageSize: 65536, Machine: "aarch64"}, 65536},
		{nil, 4096}, {&imagepb.Writer{Machine: "x86_64"}, 4096},
		{&imagepb.Writer{Machine: "aarch64"}, 0}, {&imagepb.Writer{PageSize: 5000}, 0}, {&imagepb.Writer{PageSize: 1 << 31}, 0},
	} {
		size, err := pageSizeOf(&images.Image{Manifest: &imagepb.Manifest{Writer: c.w}})
		if err != nil {
			size = 0
		}
		if size != c.want {
			t.Errorf("%v: %d, want %d", c.w, size, c.want)
		}
	}
}

// FuzzPagemap: no panic, and all that is promised of entries that are accepted.
func FuzzPagemap(f *testing.F) {
	good := now(old(header(1), 0x3000, 2), 0x8000, 1, inParent)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(now(good, maxAddr-page, 1, present))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, entries, err := parsePagemap(b, page)
		if err != nil && entries != nil || len(entries)*5 > len(b) {
			t.Errorf("%d entries from %d bytes, %v", len(entries), len(b), err)
		}
		end := uint64(0)
		var layers [2][]Run
		for n, e := range entries {
			if e.addr < end || e.addr%page != 0 || e.pages == 0 {
				t.Errorf("entry %+v, behind %x", e, end)
			}
			end = e.addr + e.pages*page
			r := Run{Addr: e.addr, Pages: e.pages, Remote: e.flags&inParent == 0}
			layers[n%2] = append(layers[n%2], r)
		}
		runs, err := flatten(layers[:], page)
		if err == nil && len(runs) > 2*len(entries) {
			t.Errorf("%d runs of %d entries", len(runs), len(entries))
		}
	})
}
