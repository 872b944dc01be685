package lab

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The directories of machines that are gone go away with the next one; those of
// living ones, and what is somebody else's, stay.
func TestSweep(t *testing.T) {
	top := t.TempDir()
	old := time.Now().Add(-time.Hour)
	make := func(name string, age time.Time) string {
		dir := filepath.Join(top, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "initramfs"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, age, age); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dead, fresh := make("crucible-lab.1", old), make("crucible-lab.2", time.Now())
	alive, other := make("crucible-lab.3", old), make("other", old)
	held, err := os.Open(alive)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	sweep(top, time.Now().Add(-time.Minute))
	for dir, want := range map[string]bool{dead: false, fresh: true, alive: true, other: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v, want there: %v", filepath.Base(dir), err, want)
		}
	}
}
