package images

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// spoil changes a file of an image, as root or somebody with the right to.
func spoil(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = os.WriteFile(path, change(b), 0o400)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	flip := func(bit int) func([]byte) []byte {
		return func(b []byte) []byte { b[bit/8] ^= 1 << (bit % 8); return b }
	}
	for name, c := range map[string]struct {
		file, text string
		spoil      func(path string)
	}{
		"last bit of the pages":  {"criu/pages-1.img", "has changed", func(p string) { spoil(t, p, flip(700_000*8-1)) }},
		"first bit of the pages": {"criu/pages-1.img", "has changed", func(p string) { spoil(t, p, flip(0)) }},
		"a bit of a message":     {Timeline, "has changed", func(p string) { spoil(t, p, flip(24*8)) }},
		"cut":                    {Bundle, "has 1 bytes and had 2", func(p string) { spoil(t, p, func(b []byte) []byte { return b[:1] }) }},
		"longer":                 {Bundle, "has 3 bytes and had 2", func(p string) { spoil(t, p, func(b []byte) []byte { return append(b, 0) }) }},
		"missing":                {"criu/pages-1.img", "is missing", func(p string) { os.Remove(p) }},
		"extra":                  {"criu/x", "does not belong", func(p string) { os.WriteFile(p, nil, 0o600) }},
		"other link":             {"criu/parent", `leads to "/etc" and led to`, func(p string) { os.Remove(p); os.Symlink("/etc", p) }},
		"file for link":          {"criu/parent", "is a file and was a symbolic link", func(p string) { os.Remove(p); os.WriteFile(p, nil, 0o600) }},
		"link for file":          {Bundle, "is a symbolic link and was a file", func(p string) { os.Remove(p); os.Symlink("x", p) }},
	} {
		t.Run(name, func(t *testing.T) {
			i := makeImage(t, Store{Dir: t.TempDir()}, "web", &imagepb.Manifest{})
			c.spoil(filepath.Join(i.Dir(), c.file))
			err := i.Verify(t.Context(), VerifyOptions{})
			if !errors.Is(err, Damaged) || !strings.Contains(err.Error(), "image web@1: "+c.file+" "+c.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("verify: %v", err)
			}
		})
	}
}

func TestVerifyNamesAll(t *testing.T) {
	i := makeImage(t, Store{Dir: t.TempDir()}, "web", &imagepb.Manifest{})
	spoil(t, filepath.Join(i.Dir(), Bundle), func(b []byte) []byte { return bytes.ToUpper(append(b, 'x')) })
	spoil(t, filepath.Join(i.Dir(), CRIU, "pages-1.img"), func(b []byte) []byte { b[9]++; return b })
	err := i.Verify(t.Context(), VerifyOptions{Workers: 1})
	if err == nil || !strings.Contains(err.Error(), "bundle.json") || !strings.Contains(err.Error(), "pages-1.img") {
		t.Errorf("verify: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := i.Verify(ctx, VerifyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	newer := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			b[at] = 9
			sum := crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli))
			binary.LittleEndian.PutUint32(b[len(b)-4:], sum)
			return b
		}
	}
	for name, c := range map[string]struct {
		kind  Kind
		text  string
		spoil func(manifest string)
	}{
		"flipped bit":  {Damaged, "checksum", func(p string) { spoil(t, p, func(b []byte) []byte { b[30] ^= 4; return b }) }},
		"cut":          {Damaged, "is cut off", func(p string) { spoil(t, p, func(b []byte) []byte { return b[:len(b)/2] }) }},
		"empty":        {Damaged, "is empty", func(p string) { spoil(t, p, func([]byte) []byte { return nil }) }},
		"another file": {Foreign, "not a file of an image", func(p string) { spoil(t, p, func([]byte) []byte { return []byte("hello, world") }) }},
		"another kind": {Foreign, "another kind of file", func(p string) { os.Remove(p); os.Link(filepath.Join(filepath.Dir(p), Timeline), p) }},
		"no manifest":  {Foreign, "has no manifest.pb", func(p string) { os.Remove(p) }},
		"newer frame":  {NewerFormat, "edition 9", func(p string) { spoil(t, p, newer(12)) }},
		"removed":      {NotFound, "there is no image of that name", func(p string) { os.RemoveAll(filepath.Dir(p)) }},
		"newer manifest": {NewerFormat, "edition 7", func(p string) {
			spoil(t, p, func([]byte) []byte { return encoded(t, &imagepb.Manifest{MinReader: 7}) })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := Store{Dir: t.TempDir()}
			i := makeImage(t, s, "web", &imagepb.Manifest{})
			c.spoil(filepath.Join(i.Dir(), Manifest))
			_, err := s.Open("web")
			var e *Error
			if !errors.As(err, &e) || e.Kind != c.kind || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) || e.Hint() == "" {
				t.Errorf("open: %v (%+v)", err, e)
			}
		})
	}
	s := Store{Dir: t.TempDir()}
	makeImage(t, s, "web", &imagepb.Manifest{})
	_, err := s.Open("web@7")
	if !errors.Is(err, NotFound) || !strings.Contains(err.Error(), "the newest is web@1") {
		t.Errorf("open web@7: %v", err)
	}
}

func encoded(t *testing.T, m *imagepb.Manifest) []byte {
	b, err := frame.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A damaged image does not hide the others, and can be removed.
func TestListDamaged(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	makeImage(t, s, "web", &imagepb.Manifest{})
	bad := makeImage(t, s, "web", &imagepb.Manifest{})
	spoil(t, filepath.Join(bad.Dir(), Manifest), func(b []byte) []byte { return b[:9] })
	all, err := s.List("")
	if len(all) != 1 || !errors.Is(err, Damaged) {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := s.Remove(t.Context(), "web@2"); err != nil {
		t.Error(err)
	}
	if all, err = s.List(""); len(all) != 1 || err != nil {
		t.Errorf("list: %v, %v", all, err)
	}
}

func TestCheckMachine(t *testing.T) {
	i := makeImage(t, Store{Dir: t.TempDir()}, "web", &imagepb.Manifest{Writer: &imagepb.Writer{Machine: "pdp11"}})
	err := i.CheckMachine("")
	if !errors.Is(err, OtherArch) || !strings.Contains(err.Error(), "was written on pdp11, this machine is ") {
		t.Errorf("other machine: %v", err)
	}
	if err := i.CheckMachine("pdp11"); err != nil {
		t.Error(err)
	}
}
