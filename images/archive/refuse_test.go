package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
	"crucible/images"
	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// item is an entry of an archive that a test writes.
type item struct {
	tar.Header
	data []byte
}

func items(t testing.TB, plain []byte) (all []item) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(plain))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, item{*h, data})
	}
}

func pack(t testing.TB, all []item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range all {
		if i.Typeflag == tar.TypeReg {
			i.Size = int64(len(i.data))
		}
		i.Format = tar.FormatUnknown
		if err := w.WriteHeader(&i.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(i.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, data string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}, []byte(data)}
}

func find(all []item, name string) *item {
	for n := range all {
		if all[n].Name == name {
			return &all[n]
		}
	}
	panic(name)
}

// remade has its first manifest changed.
func remade(t testing.TB, all []item, change func(m *imagepb.Manifest)) []item {
	t.Helper()
	i := find(all, "web/2/manifest.pb")
	var m imagepb.Manifest
	err := frame.Decode(i.data, &m)
	if err == nil {
		change(&m)
		i.data, err = frame.Encode(&m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whatever is wrong with an archive is named, and nothing is left of it.
func TestRefused(t *testing.T) {
	s := newStore(t)
	good := plainOf(t, exportOf(t, grow(t, s, grow(t, s, nil, 700<<10), 700<<10), ExportOptions{}))
	edit := func(change func(m *imagepb.Manifest)) func([]item) []item {
		return func(all []item) []item { return remade(t, all, change) }
	}
	names := func(path string) func([]item) []item {
		return edit(func(m *imagepb.Manifest) { m.Files[0].Path = path })
	}
	behind := func(i item) func([]item) []item { return func(all []item) []item { return append(all, i) } }
	for name, c := range map[string]struct {
		change func([]item) []item
		want   string
	}{
		"out of the image, by name":     {behind(file("web/1/../../../../etc/passwd", "x")), "is not in the manifest"},
		"out of the archive":            {behind(file("../web/1/x", "x")), "is no file of an image"},
		"absolute":                      {behind(file("/etc/passwd", "x")), "is no file of an image"},
		"out of the image, by manifest": {names("../../x"), "leads out of the image"},
		"absolute, by manifest":         {names("/etc/passwd"), "leads out of the image"},
		"not clean":                     {names("criu/../x"), "leads out of the image"},
		"another manifest":              {names("manifest.pb"), "is there twice"},
		"through the link":              {names("criu/parent/x"), "is below a file"},
		"below a file":                  {names("filesystem/root.tar/x"), "is below a file"},
		"twice, by manifest":            {edit(func(m *imagepb.Manifest) { m.Files = append(m.Files, m.Files[0]) }), "is there twice"},
		"twice":                         {func(all []item) []item { return append(all, *find(all, "web/1/bundle.json")) }, "comes twice"},
		"of no image":                   {behind(file("README", "x")), "is no file of an image"},
		"of another container":          {behind(file("db/1/x", "x")), "is no file of an image"},
		"not in the manifest":           {behind(file("web/1/criu/x", "x")), "is not in the manifest"},
		"of an image before":            {behind(file("web/2/criu/x", "x")), "comes before the manifest"},
		"a link":                        {behind(item{tar.Header{Typeflag: tar.TypeSymlink, Name: "web/1/x", Linkname: "/"}, nil}), "is not in the manifest"},
		"a link, by manifest":           {edit(func(m *imagepb.Manifest) { m.Files[0] = &imagepb.File{Path: m.Files[0].Path, Symlink: "/etc/passwd"} }), `is a symbolic link to "/etc/passwd"`},
		"another link": {func(all []item) []item { find(all, "web/2/criu/parent").Linkname = "/"; return all },
			"is not the symbolic link of the manifest"},
		"a link for a file": {func(all []item) []item {
			i := find(all, "web/2/bundle.json")
			i.Typeflag, i.Linkname, i.data, i.Size = tar.TypeSymlink, "/etc/passwd", nil, 0
			return all
		}, "is not a file, as in the manifest"},
		"a hard link": {func(all []item) []item {
			i := find(all, "web/1/bundle.json")
			i.Typeflag, i.Linkname, i.data, i.Size = tar.TypeLink, "web/2/bundle.json", nil, 0
			return all
		}, "is not a file, as in the manifest"},
		"a device": {func(all []item) []item {
			i := find(all, "web/1/bundle.json")
			i.Typeflag, i.Devmajor, i.data, i.Size = tar.TypeBlock, 8, nil, 0
			return all
		}, "is not a file, as in the manifest"},
		"another size": {func(all []item) []item { find(all, "web/1/bundle.json").data = []byte("{} "); return all }, "has 3 bytes, and in the manifest 2"},
		"other bytes": {func(all []item) []item { find(all, "web/1/bundle.json").data = []byte("[]"); return all },
			"bundle.json has changed"},
		"other pages": {func(all []item) []item { find(all, "web/2/criu/pages-1.img").data[600<<10]++; return all },
			"criu/pages-1.img has changed"},
		"without a file": {func(all []item) []item { return all[:len(all)-1] }, "is missing"},
		"without a file of the first": {func(all []item) []item {
			i := find(all, "web/2/bundle.json")
			i.Typeflag, i.Name, i.Size, i.data = tar.TypeDir, "web/2/", 0, nil
			return all
		}, "is missing"},
		"without the manifest": {func(all []item) []item { return all[3:] }, "comes before the manifest"},
		"without anything":     {func([]item) []item { return nil }, "has no image"},
		"another parent":       {edit(func(m *imagepb.Manifest) { m.Parent.ManifestDigest[0]++ }), "is not of what web@2 builds on"},
		"a parent of none":     {edit(func(m *imagepb.Manifest) { m.Parent = nil }), "is a symbolic link"},
		"a parent's number": {func(all []item) []item {
			find(all, "web/2/criu/parent").Linkname = "../../7/criu"
			return remade(t, all, func(m *imagepb.Manifest) { m.Parent.Ref = "web@7"; m.Files[len(m.Files)-2].Symlink = "../../7/criu" })
		}, "has another number than"},
		"newer": {edit(func(m *imagepb.Manifest) { m.MinReader = 99; m.Writer = &imagepb.Writer{Crucible: "v9"} }),
			"needs a reader of edition 99"},
		"another digest": {edit(func(m *imagepb.Manifest) { m.DigestAlgorithm = "md5" }), `is digested with "md5"`},
		"a bomb":         {edit(func(m *imagepb.Manifest) { m.Files[0].Size = 1 << 60 }), "is bigger than"},
		"bombs": {edit(func(m *imagepb.Manifest) {
			for n := range 1000 {
				m.Files = append(m.Files, &imagepb.File{Path: fmt.Sprintf("criu/%d", n), Size: 1 << 48})
			}
		}), "is bigger than"},
		"a size of no file": {edit(func(m *imagepb.Manifest) { m.Files[0].Size = 1 << 63 }), "has 9223372036854775808 bytes"},
		"a big manifest":    {func(all []item) []item { find(all, "web/2/manifest.pb").data = make([]byte, maxManifest+1); return all }, "too big"},
		"no manifest":       {func(all []item) []item { find(all, "web/2/manifest.pb").data = []byte("hello, world"); return all }, "not a file of an image"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			other := newStore(t)
			_, err := Import(t.Context(), other, bytes.NewReader(pack(t, c.change(items(t, good)))), ImportOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q", err, c.want)
			}
			var hint interface{ Hint() string }
			if !errors.As(err, &hint) || hint.Hint() == "" {
				t.Errorf("%v: there is no hint", err)
			}
			left(t, other, 0)
		})
	}
}

// A signature is asked about before anything is written.
func TestSigned(t *testing.T) {
	i := grow(t, newStore(t), nil, 100)
	sign := func(manifest []byte) ([]byte, error) { return append([]byte("by me: "), manifest...), nil }
	signed := exportOf(t, i, ExportOptions{Sign: sign})
	refused := errors.New("refused")
	check := func(manifest, signature []byte) error {
		if want, _ := sign(manifest); !bytes.Equal(signature, want) {
			return refused
		}
		return nil
	}
	another := items(t, plainOf(t, signed))
	another[0].Name = "web@2.sig"
	late := items(t, plainOf(t, signed))
	late = append(late[1:], late[0])
	twice := items(t, plainOf(t, signed))
	big := items(t, plainOf(t, signed))
	big[0].data = make([]byte, maxSignature+1)
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"signed":     {signed, ""},
		"unsigned":   {exportOf(t, i, ExportOptions{}), "refused"},
		"of another": {pack(t, another), "is of another image than web@1"},
		"late":       {pack(t, late), "refused"},
		"twice":      {pack(t, append(twice[:1], twice...)), "is no file of an image"},
		"big":        {pack(t, big), "is no signature"},
	} {
		s := newStore(t)
		x, err := Import(t.Context(), s, bytes.NewReader(c.b), ImportOptions{Check: check})
		if c.want == "" {
			if err != nil || !x.Signed {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		left(t, s, 0)
	}
	if x, err := Import(t.Context(), newStore(t), bytes.NewReader(signed), ImportOptions{}); err != nil || !x.Signed {
		t.Errorf("signed, and nobody asks: %v", err)
	}
}

// Each of these is refused, or is whole.
func TestCutAndFlipped(t *testing.T) {
	s := newStore(t)
	packed := exportOf(t, grow(t, s, nil, 400<<10, 3), ExportOptions{})
	table := bytes.LastIndex(packed, []byte{0x5e, 0x2a, 0x4d, 0x18})
	try := func(what string, b []byte, refused bool) {
		other := newStore(t)
		x, err := Import(t.Context(), other, bytes.NewReader(b), ImportOptions{})
		if refused != (err != nil) {
			t.Errorf("%s: %v", what, err)
		}
		var hint interface{ Hint() string }
		switch {
		case err == nil:
			err := x.Image.Verify(t.Context(), images.VerifyOptions{})
			if left(t, other, 1); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		case !errors.As(err, &hint):
			t.Errorf("%s: %v (%T) has no hint", what, err, err)
		default:
			left(t, other, 0)
		}
	}
	for n := 0; n <= 64; n++ {
		cut := n * table / 64
		try(fmt.Sprintf("%d of %d bytes", cut, len(packed)), packed[:cut], cut < table)
	}
	try("without the end of the table", packed[:len(packed)-3], true)
	for n := range 64 {
		b, at := bytes.Clone(packed), n*table/64
		b[at] ^= 1 << (n % 8)
		try(fmt.Sprintf("byte %d flipped", at), b, true)
	}
	for name, b := range map[string]string{"text": "#!/bin/sh\nexec true\n", "short": "x", "zeros": string(make([]byte, 10240)), "gzip": "\x1f\x8b\x08nonsense that is longer"} {
		try(name, []byte(b), true)
	}
	try("something behind it", append(bytes.Clone(packed), packed...), true)
	plain := plainOf(t, packed)
	try("a long tail of zeros", append(bytes.Clone(plain), make([]byte, 2<<20)...), true)
	try("a last record", append(bytes.Clone(plain), make([]byte, 10240)...), false)
}

// A disk that is full refuses the whole image, before it is written or at any file.
func TestFullDisk(t *testing.T) {
	testenv.Root(t)
	dir := filepath.Join(t.TempDir(), "small")
	mount := func(options string) images.Store {
		t.Helper()
		if err := unix.Mkdir(dir, 0o700); err != nil && err != unix.EEXIST {
			t.Fatal(err)
		}
		if err := unix.Mount("crucible-test", dir, "tmpfs", 0, options); err != nil {
			testenv.Skip(t, "mount a tmpfs: %v", err)
		}
		return images.Store{Dir: filepath.Join(dir, "images")}
	}
	unmount := func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
	big := exportOf(t, grow(t, newStore(t), nil, 2<<20), ExportOptions{})
	s := mount("size=1m")
	_, err := Import(t.Context(), s, bytes.NewReader(big), ImportOptions{})
	var bad *Error
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "is bigger than the") {
		t.Errorf("a big image: %v", err)
	}
	left(t, s, 0)
	unmount()
	many := exportOf(t, grow(t, newStore(t), nil, make([]int, 100)...), ExportOptions{})
	s = mount("nr_inodes=64")
	_, err = Import(t.Context(), s, bytes.NewReader(many), ImportOptions{})
	var full *images.NoSpaceError
	if !errors.As(err, &full) || full.Hint() == "" {
		t.Errorf("many files: %v", err)
	}
	left(t, s, 0)
	unmount()
}

// A command that is interrupted leaves nothing.
func TestInterrupted(t *testing.T) {
	i := grow(t, newStore(t), nil, 3*frameSize)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Export(ctx, i, io.Discard, ExportOptions{Workers: 1, Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("export: %v", err)
	}
	packed := exportOf(t, i, ExportOptions{})
	ctx, cancel = context.WithCancel(t.Context())
	s := newStore(t)
	_, err = Import(ctx, s, bytes.NewReader(packed), ImportOptions{Progress: func(int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("import: %v", err)
	}
	left(t, s, 0)
}

// FuzzImport: whatever it is, nothing is left of it but a whole image.
func FuzzImport(f *testing.F) {
	s := newStore(f)
	packed := exportOf(f, grow(f, s, grow(f, s, nil, 600, 0), 300), ExportOptions{})
	f.Add(packed)
	f.Add(plainOf(f, packed))
	f.Add(packed[:len(packed)/2])
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		other := newStore(t)
		x, err := Import(t.Context(), other, bytes.NewReader(b), ImportOptions{})
		if err != nil {
			left(t, other, 0)
			return
		}
		if err := x.Image.Verify(t.Context(), images.VerifyOptions{}); err != nil {
			t.Error(err)
		}
	})
}
