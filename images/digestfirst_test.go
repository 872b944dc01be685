package images

import (
	"testing"

	"crucible/proto/imagepb"
)

// What is written after Digest is digested by Commit, and nothing is there twice.
func TestDigestBeforeCommit(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d)
	for range 2 {
		if err := d.Digest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Write(Log, []byte("later")); err != nil {
		t.Fatal(err)
	}
	i, err := d.Commit(t.Context(), &imagepb.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	last := ""
	for _, f := range i.Manifest.Files {
		if seen[f.Path] || f.Path < last {
			t.Errorf("%s is there twice, or not in its place", f.Path)
		}
		seen[f.Path], last = true, f.Path
	}
	if !seen[Log] || !seen[Timeline] || !seen["criu/pages-1.img"] {
		t.Errorf("files %v", seen)
	}
	if err := i.Verify(t.Context(), VerifyOptions{Only: IsPages}); err != nil {
		t.Error(err)
	}
}
