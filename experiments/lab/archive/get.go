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

// get gives the directory of the cache that holds a version, and fills it if
// need be.
func (a *Archive) get(ctx context.Context, kind, version string, fill filling) (Entry, string, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, "", err
	}
	if !a.Refresh {
		// What was asked for exactly, and is here, needs no index.
		for _, e := range a.cached(kind) {
			if version == e.Release || version == e.Package || kind == CRIUKind && version == e.Version {
				if dir, err := a.use(ctx, e, fill); !errors.Is(err, errNotHere) {
					return e, dir, err
				}
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
	dir, err := a.use(ctx, e, fill)
	if gone := (*Unreachable)(nil); errors.As(err, &gone) {
		// A newer version may have taken its place in the archive.
		again, err2 := a.resolve(ctx, kind, version, freshAge)
		if err2 != nil || again.Package == e.Package {
			return Entry{}, "", err
		}
		e = again
		dir, err = a.use(ctx, e, fill)
	}
	return e, dir, err
}

func (a *Archive) resolve(ctx context.Context, kind, version string, age time.Duration) (Entry, error) {
	x, err := a.index(ctx, age)
	if err != nil {
		return Entry{}, err
	}
	what := "kernel"
	if kind == CRIUKind {
		what = "CRIU"
	}
	return choose(what, version, a.entries(x, kind))
}

// errNotHere says that an entry is in neither the cache nor the index.
var errNotHere = errors.New("neither in the cache nor in the archive")

// use gives the verified directory of an entry. One that is damaged is fetched
// again.
func (a *Archive) use(ctx context.Context, e Entry, fill filling) (string, error) {
	dir := a.path(e.Kind, dirName(e.Package))
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
	switch err := verify(ctx, dir); {
	case err == nil:
		return dir, nil // somebody else fetched it, while we waited
	case ctx.Err() != nil:
		return "", ctx.Err()
	case !errors.Is(err, fs.ErrNotExist):
		a.say("%s: damaged, and fetched again: %v", dir, err)
	}
	if len(e.packages) == 0 {
		return "", errNotHere
	}
	apt, err := newApt(ctx, a.path("apt"), lock)
	if err != nil {
		return "", err
	}
	return dir, a.fill(ctx, apt, e, dir, fill)
}

func dirName(packageVersion string) string { return strings.ReplaceAll(packageVersion, ":", "_") }

// fill makes the directory under another name first. The lock is ours: what
// others left behind can go.
func (a *Archive) fill(ctx context.Context, apt *apt, e Entry, dir string, fill filling) (err error) {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	if old, err := filepath.Glob(filepath.Join(parent, ".new-*")); err == nil {
		for _, dir := range old {
			os.RemoveAll(dir)
		}
	}
	work, err := os.MkdirTemp(parent, ".new-*")
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
