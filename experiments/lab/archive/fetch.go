package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// fetch downloads packages, which apt checks against its signed lists. only is
// from use. What was fetched in part before is gone on with.
func (a *apt) fetch(ctx context.Context, only string, packages []pkg) (files []string, err error) {
	args := []string{only, "download"}
	for _, p := range packages {
		args = append(args, p.Name+"="+p.Version)
		// apt goes on with a part, and checks the whole then; a file that
		// has the right size already it takes as it is.
		for _, file := range a.debs(p.file()) {
			if info, err := os.Stat(file); err == nil && info.Size() >= p.Size {
				if err := os.Remove(file); err != nil {
					return nil, fmt.Errorf("lab cache: %w", err)
				}
			}
		}
	}
	if _, err := a.run(ctx, filepath.Join(a.dir, "debs"), "apt-get", args...); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, unreachable(packages[0].Name+" "+packages[0].Version, err)
	}
	for _, p := range packages {
		found := a.debs(p.file())
		if len(found) != 1 {
			return nil, fmt.Errorf("apt-get download %s=%s: %d files, want 1", p.Name, p.Version, len(found))
		}
		files = append(files, found...)
	}
	return files, nil
}

// file is how the name begins that apt gives to a package's file; the rest is
// the architecture.
func (p pkg) file() string {
	return p.Name + "_" + strings.ReplaceAll(p.Version, ":", "%3a") + "_"
}

// debs are the files of packages that were fetched, in whole or in part, and
// whose name begins so.
func (a *apt) debs(start string) []string {
	dir := filepath.Join(a.dir, "debs")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // the next step says why
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), start) && strings.HasSuffix(e.Name(), ".deb") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files
}

// clean removes the packages that were fetched, and what apt made of the lists
// (50 MB) in order to read them: it is of use for as long as the suites are
// the same.
func (a *apt) clean() error {
	var failed error
	for _, file := range append(a.debs(""), filepath.Join(a.dir, "cache/pkgcache.bin"), filepath.Join(a.dir, "cache/srcpkgcache.bin")) {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
