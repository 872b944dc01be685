package lab

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Along lists what a guest needs to have a program or a directory of the host
// at its own path.
func Along(path string) ([]File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("take along: %w", err)
	}
	if info.IsDir() {
		return Directory(path, 1<<30)
	}
	return Program("/", path)
}

// Directory lists the files below a directory, in the order of their names;
// what is neither file, directory nor link is left out, and so are the
// directories in which version control keeps its own. More than limit bytes are
// an error.
func Directory(dir string, limit int64) ([]File, error) {
	var files []File
	var total int64
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := File{Path: p, Mode: info.Mode()}
		switch {
		case d.IsDir():
		case d.Type().IsRegular():
			f.Source = p
			if total += info.Size(); total > limit {
				return fmt.Errorf("more than %d MiB", limit>>20)
			}
		case d.Type() == fs.ModeSymlink:
			if f.Link, err = os.Readlink(p); err != nil {
				return err
			}
		default:
			return nil
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("take the directory %s along: %w", dir, err)
	}
	return files, nil
}

// Merge joins programs of two systems, as a CRIU of a newer release with the
// host's shell. They share the paths of their libraries, and there can be one
// libc: the newer one, which the older programs run with, too.
func Merge(a, b []File) []File {
	if libc(b) > libc(a) {
		a, b = b, a
	}
	return append(append([]File{}, a...), b...)
}

// libc is the minor number of the newest GLIBC_2.N that a list's libc defines;
// 0 if it has none.
func libc(files []File) int {
	newest := 0
	for _, f := range files {
		if f.Source == "" || filepath.Base(f.Path) != "libc.so.6" {
			continue
		}
		file, err := elf.Open(f.Source)
		if err != nil {
			continue
		}
		versions, _ := file.DynamicVersions()
		file.Close()
		for _, v := range versions {
			minor, found := strings.CutPrefix(v.Name, "GLIBC_2.")
			if n, err := strconv.Atoi(minor); found && err == nil {
				newest = max(newest, n)
			}
		}
	}
	return newest
}
