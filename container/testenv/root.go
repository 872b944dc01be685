package testenv

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// RootEnv is the environment variable that names crucible's state root.
const RootEnv = "CRUCIBLE_ROOT"

// StateRoot makes a state root for one test, puts it into the environment for
// the commands that the test runs, and removes it afterwards. It is on a file
// system that can hold a container's layer: another one than "/", since an
// overlay must not have its upper directory inside of the lower one (ELOOP in
// fs/overlayfs/super.c, ovl_workdir_create), and one with the trusted
// attributes in which an overlay keeps what it removed.
func StateRoot(t testing.TB) string {
	t.Helper()
	parent := os.TempDir()
	for _, dir := range []string{os.TempDir(), "/dev/shm", "/run", "/var/tmp"} {
		if layered(dir) {
			parent = dir
			break
		}
	}
	dir, err := os.MkdirTemp(parent, "crucible-"+stem()+"*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the state root: %v", err)
		}
	})
	t.Setenv(RootEnv, dir)
	return dir
}

// layered says whether a directory below dir can be an overlay's upper one.
func layered(dir string) bool {
	var root, here unix.Stat_t
	if unix.Stat("/", &root) != nil || unix.Stat(dir, &here) != nil || root.Dev == here.Dev {
		return false
	}
	probe, err := os.MkdirTemp(dir, ".crucible-probe-")
	if err != nil {
		return false
	}
	defer os.Remove(probe)
	return unix.Setxattr(filepath.Clean(probe), "trusted.crucible", []byte("y"), 0) == nil
}
