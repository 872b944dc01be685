package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// filling unpacks what an entry needs into an empty directory.
type filling func(ctx context.Context, apt *apt, e Entry, dir string) error

// get gives the verified directory of the cache that holds a version, and
// fills it if need be.
func (a *Archive) get(ctx context.Context, kind, version string, fill filling) (Entry, string, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, "", err
	}
	if !a.Refresh {
		// What is asked for exactly, and is here, needs no index.
		for _, e := range a.cached(kind) {
			if !e.is(version) {
				continue
			}
			if dir := a.dir(e); verify(ctx, dir) == nil {
				return e, dir, nil
			}
		}
	}
	e, err := a.resolve(ctx, kind, version, dayOld)
	if unknown := (*Unknown)(nil); errors.As(err, &unknown) {
		e, err = a.resolve(ctx, kind, version, freshAge)
	}
	if err != nil {
		return Entry{}, "", err
	}
	dir, err := a.make(ctx, e, fill)
	if gone := (*Unreachable)(nil); errors.As(err, &gone) {
		// A newer version may have taken its place in the archive.
		again, err2 := a.resolve(ctx, kind, version, freshAge)
		if err2 != nil || again.Package == e.Package {
			return Entry{}, "", err
		}
		e = again
		dir, err = a.make(ctx, e, fill)
	}
	return e, dir, err
}

// is holds for a version that can mean this entry only: neither a series nor
// one that a later release could fit better.
func (e Entry) is(version string) bool {
	if version == e.Release || version == e.Package {
		return version != ""
	}
	numbers, _ := numbers(version)
	return version == e.Version && (e.Kind == CRIUKind || len(numbers) > 2 || strings.Contains(version, "-rc"))
}

// resolve finds what is meant by a version, in the index and the cache. Without
// an index the cache has to do.
func (a *Archive) resolve(ctx context.Context, kind, version string, age time.Duration) (Entry, error) {
	x, failed := a.index(ctx, age)
	if ctx.Err() != nil {
		return Entry{}, ctx.Err()
	}
	what := "kernel"
	if kind == CRIUKind {
		what = "CRIU"
	}
	e, err := choose(what, version, a.entries(x, kind))
	if err != nil && failed != nil {
		err = failed
	}
	return e, err
}

func (a *Archive) dir(e Entry) string {
	return a.path(e.Kind, strings.ReplaceAll(e.Package, ":", "_"))
}

// make gives the verified directory of an entry. One that is not there, or is
// damaged, is fetched.
func (a *Archive) make(ctx context.Context, e Entry, fill filling) (string, error) {
	dir := a.dir(e)
	if verify(ctx, dir) == nil {
		return dir, nil
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	lock, err := a.lock(ctx)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	// Somebody else may have fetched it while we waited.
	damage := verify(ctx, dir)
	if damage == nil {
		return dir, nil
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if len(e.packages) == 0 {
		return "", fmt.Errorf("%s %s: damaged in %s, and not in the archive any more: %w", e.Kind, e.Package, a.Dir, damage)
	}
	if !errors.Is(damage, fs.ErrNotExist) {
		a.say("%s: damaged, and fetched again: %v", dir, damage)
	}
	apt, err := newApt(ctx, a.path("apt"), lock)
	if err != nil {
		return "", err
	}
	return dir, a.fill(ctx, apt, e, dir, fill)
}

// fill makes the directory under another name first. The lock is ours: what
// others left behind can go.
func (a *Archive) fill(ctx context.Context, apt *apt, e Entry, dir string, fill filling) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	if err := sweep(parent); err != nil {
		return err
	}
	work, err := os.MkdirTemp(parent, unfinished+"*")
	if err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	a.say("fetching %s %s, %.1f MB", e.Kind, e.Package, float64(e.Size)/1e6)
	if err := fill(ctx, apt, e, work); err != nil {
		return err
	}
	if err := seal(ctx, work, e); err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	if err := os.Rename(work, dir); err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	return apt.clean()
}

// unfinished is how names begin that are to be changed when all is well.
const unfinished = ".new-"

// sweep removes what was left unfinished in a directory.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	return nil
}
