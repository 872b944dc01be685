package digest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"crucible/images/blake3"
)

// Algorithm is what the manifest calls the digest.
const Algorithm = "blake3"

// File is a file of the tree.
type File struct {
	// Path from the tree's directory, with slashes.
	Path string
	Size int64
	// Sum is the digest of the content; of a symbolic link it is zero.
	Sum [blake3.Size]byte
	// Link is the target of a symbolic link; of a regular file it is empty.
	Link string
}

// Options of Tree. The zero value works.
type Options struct {
	// Workers is how many processors to use; 0: all.
	Workers int
	// Only tells which paths to digest; nil: all.
	Only func(path string) bool
	// Followed is what a Follower has hashed already.
	Followed Followed
}

// Tree digests every file below dir. The files are in lexical order; a
// directory is seen by its files only. Anything but regular files, symbolic
// links and directories is an error.
func Tree(ctx context.Context, dir string, o Options) ([]File, error) {
	files, err := list(dir, o.Only)
	if err != nil {
		return nil, err
	}
	t := tree{dir: dir, files: files, values: make([][]blake3.Value, len(files))}
	units := t.plan(o.Followed)
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	if err := t.work(ctx, units, min(workers, len(units))); err != nil {
		return nil, err
	}
	for i, v := range t.values {
		if len(v) > 0 {
			files[i].Sum = blake3.Join(v)
		}
	}
	return files, nil
}

// list names the files of dir.
func list(dir string, only func(path string) bool) ([]File, error) {
	var files []File
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f := File{Path: filepath.ToSlash(name)}
		if only != nil && !only(f.Path) {
			return nil
		}
		switch {
		case e.Type().IsRegular():
			info, err := e.Info()
			if err != nil {
				return err
			}
			f.Size = info.Size()
		case e.Type() == fs.ModeSymlink:
			if f.Link, err = os.Readlink(path); err != nil {
				return err
			}
		default:
			return fmt.Errorf("digest %s: is neither a file nor a symbolic link (%s)", path, e.Type())
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

// tree is a Tree at work.
type tree struct {
	dir   string
	files []File
	// values are those of the blocks of each file that has more than one.
	values [][]blake3.Value
}

// unit is a part of a file that one worker hashes.
type unit struct {
	file          int
	first, blocks int
}

// unitBlocks is the longest unit: long enough for opening the file not to
// matter, and short enough for the last units to be shared fairly.
const unitBlocks = 16

// plan cuts the files into units, and takes over what was followed.
func (t *tree) plan(done Followed) []unit {
	var units []unit
	for i, f := range t.files {
		if f.Link != "" {
			continue
		}
		n := int((f.Size + blake3.BlockSize - 1) / blake3.BlockSize)
		if n <= 1 {
			units = append(units, unit{file: i, blocks: 1})
			continue
		}
		t.values[i] = make([]blake3.Value, n)
		// A follower hashes whole blocks only; should the file have shrunk
		// since, the last block may be another one.
		known := done[f.Path]
		known = known[:min(len(known), int(f.Size/blake3.BlockSize))]
		first := copy(t.values[i], known)
		for ; first < n; first += unitBlocks {
			units = append(units, unit{i, first, min(unitBlocks, n-first)})
		}
	}
	return units
}

// work hashes all units.
func (t *tree) work(ctx context.Context, units []unit, workers int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var room int64 // small images need no big buffer
	for _, f := range t.files {
		room = min(max(room, f.Size), blake3.BlockSize)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			buf := make([]byte, room)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(units) || ctx.Err() != nil {
					return
				}
				if err := t.hash(ctx, units[i], buf); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// hash hashes one unit.
func (t *tree) hash(ctx context.Context, u unit, buf []byte) error {
	f := &t.files[u.file]
	path := filepath.Join(t.dir, f.Path)
	fd, err := open(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if t.values[u.file] == nil {
		n, err := readBlock(fd, path, buf, 0, f.Size)
		f.Sum = blake3.Sum(buf[:n])
		return err
	}
	for b := u.first; b < u.first+u.blocks; b++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := readBlock(fd, path, buf, b, f.Size)
		if err != nil {
			return err
		}
		t.values[u.file][b] = blake3.Block(buf[:n], uint64(b))
	}
	return nil
}

// open opens a file of the tree, and nothing that took its place. Plain
// descriptors: an os.File also asks the poller about each, which for small
// files costs as much as hashing them.
func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, fmt.Errorf("digest %s: open: %w", path, err)
		}
	}
}

// readBlock reads block n of a file of this size.
func readBlock(fd int, path string, buf []byte, n int, size int64) (int, error) {
	at := int64(n) * blake3.BlockSize
	want := int(min(size-at, blake3.BlockSize))
	for got := 0; got < want; {
		m, err := unix.Pread(fd, buf[got:want], at+int64(got))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("digest %s: read: %w", path, err)
		case m == 0:
			return 0, fmt.Errorf("digest %s: has become shorter than %d bytes while it was read", path, size)
		}
		got += max(m, 0)
	}
	return want, nil
}
