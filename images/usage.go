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
	Images     []ImageUsage
	Containers []ContainerUsage
	// Packs is how many there are; PackBytes their size, and Unused the part of
	// it that a Prune can free.
	Packs     int
	PackBytes int64
	Unused    int64
	// Drafts are the bytes of images that are being written, and of views.
	Drafts int64
}

// Share is a part of what is on disk, in bytes.
type Share struct {
	// Size is what the files have, or had before they were packed.
	Size int64
	// Files are those that are nobody else's.
	Files int64
	// Unique are compressed pages in packs that nobody else has, Shared those
	// that others have, too. Files and Unique are what is freed by a removal, the
	// latter with the next Prune.
	Unique, Shared int64
	// Packed: some of the memory is in packs.
	Packed bool
}

// ImageUsage is an image's share.
type ImageUsage struct {
	Ref
	Share
}

// ContainerUsage is the share of all images of a container. Pages that only they
// have are unique.
type ContainerUsage struct {
	Name   string
	Images int
	Share
}

// Total is all that the store takes.
func (u *Usage) Total() int64 {
	sum := u.PackBytes + u.Drafts
	for _, i := range u.Images {
		sum += i.Files
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
		n := len(out.Containers) - 1
		if n < 0 || out.Containers[n].Name != i.Name {
			out.Containers = append(out.Containers, ContainerUsage{Name: i.Name})
			packs.Group()
			n++
		}
		packs.User()
		one := ImageUsage{Ref: Ref{i.Name, i.Number}, Share: Share{Size: i.Size(), Files: sizeOnDisk(i.Dir())}}
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
		c := &out.Containers[n]
		c.Images, c.Size, c.Files, c.Packed = c.Images+1, c.Size+one.Size, c.Files+one.Files, c.Packed || one.Packed
		out.Images = append(out.Images, one)
	}
	users, groups, total := packs.Sum()
	for n, share := range users {
		out.Images[n].Unique, out.Images[n].Shared = share.Unique, share.Shared
	}
	for n, share := range groups {
		out.Containers[n].Unique, out.Containers[n].Shared = share.Unique, share.Shared
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
