package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Who turns CRIU's files into JSON, besides crucible: CRIU's own tool, which is
// a command for each file; the library below it, which a program of one's own
// can use for all of them; and the same tool in Go.
const (
	nameCrit    = "crit"
	namePycriu  = "pycriu"
	nameGoCrit  = "go-criu's crit"
	privateCrit = "/usr/local/lib/crucible/crit" // where scripts/setup --bench puts them
)

// decodeAll is what a program that uses pycriu has to do, at least.
const decodeAll = `import json, os, sys
import pycriu
for path in sys.argv[2:]:
    with open(path, "rb") as f:
        image = pycriu.images.load(f, False)
    with open(os.path.join(sys.argv[1], os.path.basename(path) + ".json"), "w") as f:
        json.dump(image, f)
`

// decoding: all files of an image that have entries. Of the two images one is
// of sleep, the other of a program whose memory is in many pieces, so that its
// files are large.
func decoding(ctx context.Context, r *rig, out *results, n rounds) error {
	s, name := &crucible{r}, r.name()
	for _, what := range []string{"sleep", "16384 pieces of memory"} {
		p := tiny()
		if what != "sleep" {
			p = r.workload(name, "scatter", "16384")
		}
		err := with(ctx, s, name, p, func(b box) error {
			if what != "sleep" {
				if err := answers(ctx, b, r.socket(name)); err != nil {
					return err
				}
			}
			if _, err := b.Checkpoint(ctx, false); err != nil {
				return err
			}
			arms, err := decoders(r, s, b.(*crucibleBox).image, what)
			if err != nil {
				return err
			}
			return out.interleave(ctx, "decode", n, arms)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func decoders(r *rig, s *crucible, image, what string) ([]arm, error) {
	files, err := filesOf(s, image)
	if err != nil {
		return nil, err
	}
	python := command{argv: []string{"/usr/bin/python3"}, env: []string{"PYTHONPATH=" + filepath.Join(privateCrit, "usr/lib/python3/dist-packages")}}
	return []arm{
		decoder(r, nameCrucible, "", what, func(ctx context.Context, dir string) (time.Duration, error) {
			_, took, err := s.command(ctx, "image", "decode", "-o", dir, image)
			return took, err
		}),
		decoder(r, nameCrit, python.env[0], what, eachFile(r, files, python, "-m", "crit")),
		decoder(r, namePycriu, python.env[0], what, func(ctx context.Context, dir string) (time.Duration, error) {
			c := python
			c.argv = append(append([]string{}, c.argv...), append([]string{"-c", decodeAll, dir}, files...)...)
			_, took, err := r.run(ctx, c)
			return took, err
		}),
		decoder(r, nameGoCrit, filepath.Join(privateCrit, "go-crit"), what, eachFile(r, files, command{argv: []string{filepath.Join(privateCrit, "go-crit")}})),
	}, nil
}

// decoder is an arm; one that is not installed answers nothing.
func decoder(r *rig, name, needs, what string, run func(context.Context, string) (time.Duration, error)) arm {
	return arm{name, func(ctx context.Context) ([]value, error) {
		needs := strings.TrimPrefix(needs, "PYTHONPATH=")
		if _, err := os.Stat(needs); needs != "" && err != nil {
			return nil, errors.ErrUnsupported
		}
		dir := r.path("json")
		if err := afresh(dir); err != nil {
			return nil, err
		}
		took, err := run(ctx, dir)
		return []value{milliseconds(what, took)}, err
	}}
}

// eachFile runs a command for each file.
func eachFile(r *rig, files []string, tool command, args ...string) func(context.Context, string) (time.Duration, error) {
	return func(ctx context.Context, dir string) (all time.Duration, err error) {
		for _, file := range files {
			c := tool
			c.argv = append(append(append([]string{}, tool.argv...), args...), "decode", "-i", file, "-o", filepath.Join(dir, filepath.Base(file)+".json"))
			_, took, err := r.run(ctx, c)
			if err != nil {
				return all, err
			}
			all += took
		}
		return all, nil
	}
}

// filesOf are the paths of CRIU's files in an image that are not raw.
func filesOf(s *crucible, image string) ([]string, error) {
	dir := s.path("json")
	if err := afresh(dir); err != nil {
		return nil, err
	}
	out, _, err := s.command(context.Background(), "image", "decode", "--json", "-o", dir, image)
	if err != nil {
		return nil, err
	}
	var files []struct{ File, JSON string }
	if err := decode([]byte(out), &files); err != nil {
		return nil, err
	}
	container, number, _ := strings.Cut(image, "@")
	var paths []string
	for _, f := range files {
		if f.JSON != "" {
			paths = append(paths, s.path("crucible", "images", container, number, "criu", f.File))
		}
	}
	return paths, nil
}
