package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	// Env names the CRIU to use where the command line does not.
	Env = "CRUCIBLE_CRIU"
	// Prefix is where scripts/setup installs the CRIU that it builds.
	Prefix = "/usr/local/lib/crucible/bin/criu"
)

// CRIU is a CRIU program that was found. Nothing has been run yet.
type CRIU struct {
	Path string
}

// Find finds CRIU: the explicit path if there is one, else $CRUCIBLE_CRIU,
// else the private prefix, else the directories of $PATH and those that hold
// a system's administration programs. It only looks; it starts nothing.
// A path that was asked for and is not there is an error: another CRIU than
// the named one would answer other questions than those that were asked.
func Find(explicit string) (*CRIU, error) {
	for _, path := range []string{explicit, os.Getenv(Env)} {
		if path == "" {
			continue
		}
		found, err := exec.LookPath(path)
		if err != nil {
			err = errors.Unwrap(err)
			var bare *os.PathError
			if errors.As(err, &bare) {
				err = bare.Err // the path is told already
			}
			return nil, &NotFound{Tried: []string{path}, Err: err}
		}
		return at(found)
	}
	tried := candidates(os.Getenv("PATH"))
	for _, path := range tried {
		if executable(path) {
			return &CRIU{Path: path}, nil
		}
	}
	return nil, &NotFound{Tried: tried}
}

// at makes the path absolute: CRIU is started from any directory.
func at(path string) (*CRIU, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find CRIU at %s: %w", path, err)
	}
	return &CRIU{Path: abs}, nil
}

// candidates lists where a CRIU may be, best first, each place once.
func candidates(path string) []string {
	list := []string{Prefix}
	seen := map[string]bool{}
	// Debian keeps CRIU in /usr/sbin, which is not in everybody's PATH.
	dirs := append(filepath.SplitList(path), "/usr/local/sbin", "/usr/sbin", "/sbin")
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) || seen[dir] {
			continue
		}
		seen[dir] = true
		list = append(list, filepath.Join(dir, "criu"))
	}
	return list
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// Version asks CRIU for its version by `criu --version`. Where a CRIU is
// already running, Process.Version asks that one and starts nothing.
func (c *CRIU) Version(ctx context.Context) (Version, error) {
	out, err := c.run(ctx, "--version")
	if err != nil {
		return Version{}, &NotWorking{Path: c.Path, Cause: firstLine(out), Err: err}
	}
	v, err := parseVersion(out)
	if err != nil {
		return Version{}, &NotWorking{Path: c.Path, Err: err}
	}
	return v, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
