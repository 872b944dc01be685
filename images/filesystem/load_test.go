package filesystem

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// entry is an entry of an archive that no Save would write.
type entry struct {
	tar.Header
	content string
}

func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Format = tar.FormatPAX
		e.Size = int64(len(e.content))
		e.Uid, e.Gid = os.Getuid(), os.Getgid()
		if e.Mode == 0 {
			e.Mode = 0o755
		}
		must(t, w.WriteHeader(&e.Header))
		_, err := w.Write([]byte(e.content))
		must(t, err)
	}
	must(t, w.WriteHeader(endOf(len(entries))))
	must(t, w.Close())
	return b.Bytes()
}

func file(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name}, content}
}

func symlink(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}, ""}
}

func link(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
}

func dir(name string) entry { return entry{tar.Header{Typeflag: tar.TypeDir, Name: name}, ""} }

func sparse(size string, parts ...any) entry {
	var content []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int64:
			content = binary.LittleEndian.AppendUint64(content, uint64(p))
		case int:
			content = binary.LittleEndian.AppendUint64(content, uint64(p))
		case string:
			content = append(content, p...)
		}
	}
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{recordSparse: size}}, string(content)}
}

// cell is a directory to load into, inside of another that must not change.
func cell(t testing.TB) (inside string, check func()) {
	t.Helper()
	outside := t.TempDir()
	inside = filepath.Join(outside, "in")
	secret := filepath.Join(outside, "out", "secret")
	must(t, os.MkdirAll(filepath.Dir(secret), 0o700))
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, os.Mkdir(inside, 0o700))
	must(t, os.WriteFile(filepath.Join(inside, "old"), []byte("old"), 0o600))
	must(t, os.Symlink("../out", filepath.Join(inside, "way-out")))
	before, err := os.Stat(secret)
	must(t, err)
	return inside, func() {
		t.Helper()
		after, err := os.Stat(secret)
		b, _ := os.ReadFile(secret)
		if err != nil || string(b) != "secret" || after.ModTime() != before.ModTime() || after.Mode() != before.Mode() || !os.SameFile(after, before) {
			t.Errorf("the file outside has changed: %q, %v, %v", b, after, err)
		}
		for dir, want := range map[string]int{outside: 2, filepath.Dir(secret): 1} {
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != want {
				t.Errorf("files appeared outside: %v, %v", entries, err)
			}
		}
		if b, _ := os.ReadFile(filepath.Join(inside, "old")); string(b) != "old" {
			t.Errorf("an existing file has changed: %q", b)
		}
	}
}

func TestHostile(t *testing.T) {
	with := func(e entry, record, value string) entry {
		e.PAXRecords = map[string]string{record: value}
		return e
	}
	for name, c := range map[string]struct {
		entries []entry
		text    string
	}{
		"absolute":               {[]entry{file("/x", "")}, "leads out"},
		"dots":                   {[]entry{file("../out/x", "")}, "leads out"},
		"dots inside":            {[]entry{dir("a"), file("a/../../out/x", "")}, "leads out"},
		"only dots":              {[]entry{dir("..")}, "leads out"},
		"through an old symlink": {[]entry{file("way-out/x", "")}, "open directory way-out"},
		"through a new symlink":  {[]entry{symlink("s", "/tmp"), file("s/x", "")}, "open directory s"},
		"symlink to itself":      {[]entry{symlink("s", "."), file("s/x", "")}, "open directory s"},
		"over a symlink":         {[]entry{symlink("s", "../out/secret"), file("s", "gotcha")}, "file exists"},
		"directory on symlink":   {[]entry{dir("way-out")}, "file exists"},
		"attributes by symlink":  {[]entry{symlink("s", "../out"), dir("s")}, "file exists"},
		"over an old file":       {[]entry{file("old", "new")}, "file exists"},
		"over a new file":        {[]entry{file("x", "1"), file("x", "2")}, "file exists"},
		"below a file":           {[]entry{file("old/x", "")}, "not a directory"},
		"without a directory":    {[]entry{file("none/x", "")}, "no such file"},
		"link out":               {[]entry{link("l", "../out/secret")}, "leads out"},
		"absolute link":          {[]entry{link("l", "/etc/passwd")}, "leads out"},
		"link by symlink":        {[]entry{link("l", "way-out/secret")}, "is a link to"},
		"link to a directory":    {[]entry{dir("d"), link("l", "d")}, "is a link to"},
		"link to itself":         {[]entry{link("l", "l")}, "no such file"},
		"file is the root":       {[]entry{file(".", "")}, "no directory"},
		"contiguous file":        {[]entry{{tar.Header{Typeflag: tar.TypeCont, Name: "x"}, ""}}, "unknown type '7'"},
		"vendor's type":          {[]entry{{tar.Header{Typeflag: 'Z', Name: "x"}, ""}}, "unknown type 'Z'"},
		"device too big":         {[]entry{{tar.Header{Typeflag: tar.TypeChar, Name: "x", Devmajor: 4096}, ""}}, "device 4096:0"},
		"nameless attribute":     {[]entry{with(file("x", ""), recordXattr, "1")}, `name ""`},
		"NUL in attribute":       {[]entry{with(file("x", ""), recordHexXattr+"7500", "1")}, `name "u\x00"`},
		"odd attribute":          {[]entry{with(file("x", ""), recordHexXattr+"7", "1")}, "bad name"},
		"unknown attribute":      {[]entry{with(file("x", ""), recordXattr+"no.such.class", "1")}, "set attribute no.such.class"},
		"sparse: no number":      {[]entry{sparse("much")}, `size "much"`},
		"sparse: negative":       {[]entry{sparse("-1")}, `size "-1"`},
		"sparse: beyond the end": {[]entry{sparse("10", 8, 4, "data")}, "part of 4 bytes at 8"},
		"sparse: backwards":      {[]entry{sparse("100", 50, 4, "data", 40, 4, "data")}, "part of 4 bytes at 40"},
		"sparse: overlap":        {[]entry{sparse("100", 50, 4, "data", 52, 4, "data")}, "part of 4 bytes at 52"},
		"sparse: nothing":        {[]entry{sparse("100", 50, 0)}, "part of 0 bytes"},
		"sparse: overflow":       {[]entry{sparse("100", int64(1)<<62, int64(1)<<62, "data")}, "part of"},
		"sparse: negative part":  {[]entry{sparse("100", -8, 4, "data")}, "part of"},
		"sparse: short":          {[]entry{sparse("100", 8, 9, "data")}, "of 4 in the archive"},
		"sparse: half a head":    {[]entry{sparse("100", 8)}, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			inside, check := cell(t)
			_, err := Load(t.Context(), bytes.NewReader(pack(t, c.entries...)), inside)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("load: %v, want ...%s...", err, c.text)
			}
			check()
		})
	}
}

// GNU tar's sparse files are read by archive/tar as if they were full: a small
// archive would fill the disk.
func TestGNUSparse(t *testing.T) {
	b := pack(t, entry{tar.Header{Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{
		"XXX.sparse.major": "1", "XXX.sparse.minor": "0", "XXX.sparse.realsize": "1000000000000", "XXX.sparse.name": "x"}}, "1\n0\n1\n" + strings.Repeat("\x00", 506) + "d"})
	b = bytes.ReplaceAll(b, []byte("XXX.sparse"), []byte("GNU.sparse"))
	inside, check := cell(t)
	if _, err := Load(t.Context(), bytes.NewReader(b), inside); err == nil || !strings.Contains(err.Error(), "GNU") {
		t.Errorf("load: %v", err)
	}
	check()
}

// Wherever the archive is cut, Load says so.
func TestCut(t *testing.T) {
	whole := pack(t, dir("d"), file("d/x", strings.Repeat("content", 300)), symlink("s", "x"))
	for n := range len(whole) - 1024 - 512 { // behind are zeros only
		if n%512 > 4 && n%512 < 508 {
			continue
		}
		if _, err := Load(t.Context(), bytes.NewReader(whole[:n]), t.TempDir()); err == nil {
			t.Errorf("cut at %d and not noticed", n)
		}
	}
	other := pack(t, dir("d"))
	if _, err := Load(t.Context(), bytes.NewReader(append(whole[:len(whole)-2048:len(whole)-2048], other...)), t.TempDir()); err == nil || !strings.Contains(err.Error(), "file exists") && !strings.Contains(err.Error(), "entries of") {
		t.Errorf("two archives in one: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Load(ctx, bytes.NewReader(whole), t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Directories that are there are used, and made what the archive says.
func TestExistingDirectory(t *testing.T) {
	inside, check := cell(t)
	must(t, os.Mkdir(filepath.Join(inside, "d"), 0o700))
	d := dir("d")
	d.Mode = 0o751
	_, err := Load(t.Context(), bytes.NewReader(pack(t, d, file("d/x", "1"))), inside)
	must(t, err)
	info, err := os.Stat(filepath.Join(inside, "d"))
	if err != nil || info.Mode().Perm() != 0o751 {
		t.Errorf("%v, %v", info, err)
	}
	check()
}

func FuzzLoad(f *testing.F) {
	f.Add(pack(f, dir("d"), file("d/x", "content"), symlink("s", "../out"), link("l", "d/x"), file("s/x", "")))
	f.Add(pack(f, sparse("100", 8, 4, "data", 50, 4, "data")))
	f.Add(pack(f, entry{tar.Header{Typeflag: tar.TypeReg, Name: "sock", PAXRecords: map[string]string{recordSocket: "1", recordXattr + "user.x": "1"}}, ""},
		entry{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"}, ""}, entry{tar.Header{Typeflag: tar.TypeChar, Name: "white"}, ""}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		inside, check := cell(t)
		_, err := Load(t.Context(), bytes.NewReader(archive), inside)
		check()
		if err != nil {
			return
		}
		// What was loaded can be saved, and loaded again.
		var again bytes.Buffer
		if _, err := Save(t.Context(), inside, &again, SaveOptions{}); err != nil {
			if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
				t.Errorf("loaded but not saved: %v", err)
			}
			return
		}
		dst := t.TempDir()
		if _, err := Load(t.Context(), &again, dst); err != nil {
			t.Errorf("saved but not loaded: %v", err)
		}
	})
}
