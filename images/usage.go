package images

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"crucible/images/pack"
)

// Usage says what the store takes on disk.
type Usage struct {
	Images []ImageUsage
	// Packs is how many there are; PackBytes their size, and Unused the part of
	// it that a Prune can free.
	Packs     int
	PackBytes int64
	Unused    int64
	// Drafts are the bytes of images that are being written, and of views.
	Drafts int64
}

// ImageUsage is an image's part of it.
type ImageUsage struct {
	Ref string
	// Size is what its files have, or had before they were packed.
	Size int64
	// Own are the bytes on disk of files that are the image's alone.
	Own int64
	// Unique are the compressed bytes of pages in packs that only this image
	// has, Shared of those that others have, too. Own and Unique are what its
	// removal frees, Unique not before a Prune.
	Unique, Shared int64
	// Packed: some of its memory is in packs.
	Packed bool
}

// Total is all that the store takes.
func (u *Usage) Total() int64 {
	sum := u.PackBytes + u.Drafts
	for _, i := range u.Images {
		sum += i.Own
	}
	return sum
}

// Usage adds up what is on disk. The error joins what it could not read.
func (s Store) Usage() (*Usage, error) {
	images, err := s.List("")
	errs := []error{err}
	packs, bad := s.packs().NewUsage()
	errs = append(errs, bad...)
	out := &Usage{Drafts: s.draftsOnDisk()}
	for _, i := range images {
		packs.User()
		one := ImageUsage{Ref: i.Ref(), Size: i.Size(), Own: sizeOnDisk(i.Dir())}
		for _, f := range i.Manifest.Files {
			if !IsPages(f.Path) {
				continue
			}
			if _, err := os.Lstat(filepath.Join(i.Dir(), indexOf(f.Path))); err != nil {
				continue
			}
			x, err := i.index(f.Path)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			packs.Count(x)
			one.Packed = true
		}
		out.Images = append(out.Images, one)
	}
	shares, total := packs.Sum()
	for n, share := range shares {
		out.Images[n].Unique, out.Images[n].Shared = share.Unique, share.Shared
	}
	out.Packs, out.PackBytes, out.Unused = total.Packs, total.Bytes, total.Unused
	return out, errors.Join(errs...)
}

// indexFile is the index of a file of pages of an image, which need not be one
// that can be opened.
type indexFile struct {
	image *Image
	pages string // criu/pages-1.img
}

// eachIndex calls a function for every index in the store, but those of some
// images. An index that cannot be read ends it: nobody knows what it needs.
func (s Store) eachIndex(but map[string]bool, do func(indexFile, *pack.Index) error) error {
	names, err := s.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		numbers, err := s.Numbers(name)
		if err != nil {
			return err
		}
		for _, n := range numbers {
			i := &Image{Name: name, Number: n, store: s}
			if but[i.Ref()] {
				continue
			}
			entries, err := os.ReadDir(filepath.Join(i.Dir(), Indexes))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, e := range entries {
				f := indexFile{i, pagesOf(e.Name())}
				x, err := i.index(f.pages)
				if err != nil {
					if _, gone := os.Lstat(i.Dir()); errors.Is(gone, fs.ErrNotExist) {
						break // removed meanwhile
					}
					return err
				}
				if err := do(f, x); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sizeOnDisk is what the files below a directory take.
func sizeOnDisk(dir string) (bytes int64) {
	walkSizes(dir, func(size int64, _ bool) { bytes += size })
	return bytes
}

// draftsOnDisk is what drafts take. Files that have another name are an image's,
// which a view shows.
func (s Store) draftsOnDisk() (bytes int64) {
	walkSizes(s.drafts(), func(size int64, linked bool) {
		if !linked {
			bytes += size
		}
	})
	return bytes
}

// walkSizes calls a function for every file below a directory.
func walkSizes(dir string, do func(size int64, linked bool)) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && e.Type().IsRegular() && unix.Lstat(path, &st) == nil {
			do(st.Blocks*512, st.Nlink > 1)
		}
		return nil
	})
}

// fileSize is what a file takes on disk: holes are nothing.
func fileSize(path string) (bytes int64) {
	walkSizes(path, func(size int64, _ bool) { bytes += size })
	return bytes
}
