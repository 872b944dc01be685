package criu

import (
	"os"
	"path/filepath"
	"testing"

	"crucible/container/testenv"
)

func TestRunDir(t *testing.T) {
	testenv.Root(t)
	prefix := t.TempDir()
	c := &CRIU{Path: filepath.Join(prefix, "bin", "criu")}
	if err := os.Mkdir(filepath.Join(prefix, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.ensureRunDir(); err != nil {
		t.Fatalf("a CRIU without a recorded directory: %v", err)
	}
	dir := filepath.Join(prefix, "cache")
	if err := os.WriteFile(filepath.Join(prefix, "rundir"), []byte(dir+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.ensureRunDir(); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Fatalf("the directory is not as it should be: %v, %v", st, err)
		}
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := c.ensureRunDir(); err == nil {
		t.Error("took a directory that somebody else owns")
	}
}
