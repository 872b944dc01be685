package testenv

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
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
	roots.Lock()
	defer roots.Unlock()
	roots.all = append(roots.all, dir)
	return dir
}

// roots are the state roots that this process has made.
var roots struct {
	sync.Mutex
	all []string
}

func stateRoots() []string {
	roots.Lock()
	defer roots.Unlock()
	return slices.Clone(roots.all)
}

// Bridge is the name of a state root's bridge, by which the nftables table of
// the root is called as well: container/network's, which a test there checks.
func Bridge(root string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(root)))
	return fmt.Sprintf("crb%x", sum[:4])
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
