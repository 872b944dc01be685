package archive

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"crucible/images/digest"
)

// contents is what contents.json says about a directory of the cache.
type contents struct {
	Kind    string
	Version string
	Release string `json:",omitempty"`
	Package string
	Size    int64
	Files   []file
}

type file struct {
	Path   string
	Size   int64
	Digest string // digest.Algorithm, hexadecimal
}

const contentsFile = "contents.json"

func readContents(dir string) (*contents, error) {
	data, err := os.ReadFile(filepath.Join(dir, contentsFile))
	if err != nil {
		return nil, err
	}
	c := new(contents)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s: %w", contentsFile, err)
	}
	return c, nil
}

// seal writes down what is in a directory.
func seal(ctx context.Context, dir string, e Entry) error {
	c := contents{Kind: e.Kind, Version: e.Version, Release: e.Release, Package: e.Package, Size: e.Size}
	var err error
	if c.Files, err = files(ctx, dir); err != nil {
		return err
	}
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, contentsFile), data, 0o644)
}

// verify compares a directory, byte for byte, with what was written down.
func verify(ctx context.Context, dir string) error {
	c, err := readContents(dir)
	if err != nil {
		return err
	}
	now, err := files(ctx, dir)
	if err != nil {
		return err
	}
	if len(c.Files) == 0 || len(now) != len(c.Files) {
		return fmt.Errorf("%d files, want %d", len(now), len(c.Files))
	}
	for i, f := range c.Files {
		if now[i] != f {
			return fmt.Errorf("%s is not as it was fetched", f.Path)
		}
	}
	return nil
}

func files(ctx context.Context, dir string) ([]file, error) {
	tree, err := digest.Tree(ctx, dir, digest.Options{Only: func(path string) bool { return path != contentsFile }})
	if err != nil {
		return nil, err
	}
	var list []file
	for _, f := range tree {
		if f.Link != "" {
			return nil, errors.New(f.Path + " is a symbolic link")
		}
		list = append(list, file{f.Path, f.Size, hex.EncodeToString(f.Sum[:])})
	}
	return list, nil
}
