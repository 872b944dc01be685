package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ensureRunDir makes the directory in which a CRIU that scripts/setup built
// caches what it knows of the kernel (RUNDIR in CRIU's Makefile): a tmpfs is
// empty after a boot, and without the cache each start takes 25 to 40 ms longer.
// A directory that is not ours is refused: who owns it could make CRIU believe
// anything of the kernel.
func (c *CRIU) ensureRunDir() error {
	name, err := os.ReadFile(filepath.Join(filepath.Dir(c.Path), "..", "rundir"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // another CRIU: it looks after itself
	}
	if err != nil {
		return err
	}
	dir := strings.TrimSpace(string(name))
	if err := unix.Mkdir(dir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil // not root, or no such file system: CRIU is slower, and works
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("start %s: its directory %s belongs to somebody else: remove it", c.Path, dir)
	}
	return nil
}
