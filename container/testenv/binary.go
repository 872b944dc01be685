package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// BinaryEnv is the environment variable that names a program to test in place
// of one built from the sources.
const BinaryEnv = "CRUCIBLE_BINARY"

// Binary is the path of the crucible program under test: $CRUCIBLE_BINARY, or
// one that is built from the sources, once for each test process. It is built
// into the user's cache directory, where go build finds the last one and does
// nothing if it is up to date.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		path, err := filepath.Abs(path)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", BinaryEnv, err)
		}
		return path, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	return build(root, "./cmd/crucible")
})

// build builds a command of the module at root. Test processes take turns, and
// each gets the file as it is then: go build replaces it by rename.
func build(root, pkg string) (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	// Two checkouts must not build over each other's.
	out := filepath.Join(dir, strings.ReplaceAll(strings.Trim(filepath.Join(root, pkg), "/"), "/", "-"))
	unlock, err := lockFile(out + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", out, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return out, nil
}

// moduleRoot is the directory of go.mod: a test runs in its package's.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod here or above: set " + BinaryEnv)
		}
		dir = up
	}
}

// startTemp is the directory for temporary files before LeakCheck set another.
var startTemp = os.TempDir()

// cacheDir is where the tests keep what outlives a test process.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil { // no $HOME
		dir = filepath.Join(startTemp, fmt.Sprintf(".cache-%d", os.Getuid()))
	}
	dir = filepath.Join(dir, "crucible-test")
	return dir, os.MkdirAll(dir, 0o755)
}

// lockFile waits for a lock among processes: flock(2).
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}
