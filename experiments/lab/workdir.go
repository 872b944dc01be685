package lab

import (
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const workPattern = "crucible-lab."

// makeWorkDir makes the directory of a machine's files, and removes those of
// machines whose crucible was killed. The lock on a directory is its owner's
// sign of life; a fresh one may not have been locked yet.
func makeWorkDir() (*os.File, error) {
	sweep(os.TempDir(), time.Now().Add(-time.Minute))
	dir, err := os.MkdirTemp("", workPattern)
	if err != nil {
		return nil, err
	}
	held, err := os.Open(dir)
	if err == nil {
		err = unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return held, nil
}

// sweep removes what is older than a time and is nobody's any more. What cannot
// be removed is left: it is in nobody's way.
func sweep(top string, before time.Time) {
	found, err := filepath.Glob(filepath.Join(top, workPattern+"*"))
	if err != nil {
		return
	}
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || info.ModTime().After(before) {
			continue
		}
		// In /tmp anybody can make a directory of that name.
		if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
			continue
		}
		held, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.RemoveAll(dir)
		}
		held.Close()
	}
}
