package images

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"crucible/proto/imagepb"
)

func TestOpenPages(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	content := bytes.Repeat([]byte("page"), 2048)
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write("criu/pages-1.img", content); err != nil {
		t.Fatal(err)
	}
	i, err := d.Commit(t.Context(), &imagepb.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := i.OpenPages("criu/pages-1.img")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got := make([]byte, p.Size())
	if _, err := p.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("read %d bytes, %v; want the %d that were written", len(got), err, len(content))
	}
	if _, err := i.OpenPages("manifest.pb"); err == nil {
		t.Error("opened the manifest as a file of pages")
	}
	if _, err := i.OpenPages("criu/pages-2.img"); !errors.Is(err, Damaged) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.Mkdir(filepath.Join(i.CRIUDir(), "pages-3.img"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := i.OpenPages("criu/pages-3.img"); !errors.Is(err, Damaged) {
		t.Errorf("a directory: %v", err)
	}
}
