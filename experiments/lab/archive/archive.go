package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Archive is a cache of what Debian's archive has. Several of them, also in
// different programs, may use the same directory at the same time.
type Archive struct {
	Dir string
	// Refresh reads the archive's index anew before the next answer. Otherwise
	// that is done if it is older than a day, or does not have what is asked for.
	Refresh bool
	// Progress is told what takes time, one line each, if it is not nil.
	Progress func(line string)

	tried atomic.Bool // to renew the index
}

// Open takes a directory for the cache; "" means crucible/lab in the user's
// cache directory ($XDG_CACHE_HOME, else ~/.cache). Where there is none, as
// without HOME, it is /var/cache for root, and a directory of the user's
// own in the one for temporary files.
func Open(dir string) (*Archive, error) {
	if dir != "" {
		dir, err := filepath.Abs(dir)
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
		if err != nil {
			return nil, fmt.Errorf("lab cache: %w", err)
		}
		return &Archive{Dir: dir}, nil
	}
	if cache, err := os.UserCacheDir(); err == nil {
		dir := filepath.Join(cache, "crucible/lab")
		if err := os.MkdirAll(dir, 0o755); err == nil {
			return &Archive{Dir: dir}, nil
		}
	}
	dir, err := homeless()
	if err != nil {
		return nil, fmt.Errorf("lab cache: %w", err)
	}
	return &Archive{Dir: dir}, nil
}

// homeless is where the cache is for a user without a home.
func homeless() (string, error) {
	if os.Geteuid() == 0 {
		dir := "/var/cache/crucible/lab"
		return dir, os.MkdirAll(dir, 0o755)
	}
	top := filepath.Join(os.TempDir(), "crucible-"+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(top, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// Others may write there: take only what is ours alone.
	info, err := os.Lstat(top)
	if err != nil {
		return "", err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || info.Mode().Perm() != 0o700 || int(owner.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s: not a directory of this user alone", top)
	}
	dir := filepath.Join(top, "lab")
	return dir, os.MkdirAll(dir, 0o755)
}

func (a *Archive) path(names ...string) string {
	return filepath.Join(append([]string{a.Dir}, names...)...)
}

func (a *Archive) say(format string, args ...any) {
	if a.Progress != nil {
		a.Progress(fmt.Sprintf(format, args...))
	}
}

// lock makes this the only one that changes the cache. The programs it starts
// inherit the file and with it the lock: where we are killed, it holds until
// they are gone, too.
func (a *Archive) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(a.path("lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lab cache: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("lab cache: lock %s: %w", f.Name(), err)
	}
	a.say("waiting for another user of %s", a.Dir)
	got := make(chan error, 1)
	go func() { got <- flock(f) }()
	select {
	case err = <-got:
		if err == nil {
			return f, nil
		}
		f.Close()
		return nil, fmt.Errorf("lab cache: lock %s: %w", f.Name(), err)
	case <-ctx.Done():
		// Nothing but a signal to its thread ends the wait: leave it behind.
		go func() { <-got; f.Close() }()
		return nil, ctx.Err()
	}
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
