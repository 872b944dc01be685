package images

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"crucible/images/pack"
)

// Pages is the content of one of CRIU's files of pages, however the store
// keeps it. Any number of goroutines may read it; many bytes at a time are faster.
type Pages interface {
	io.ReaderAt
	io.Closer
	// Size is the content's, in bytes.
	Size() int64
}

// IsPages tells CRIU's files of memory pages, nearly all of an image, from the others.
func IsPages(file string) bool {
	ok, _ := path.Match(CRIU+"/pages-*.img", file)
	return ok
}

// Indexes is the directory of the indexes of those files that are packed.
const Indexes = "packed"

// indexOf is the index of a file of pages: packed/pages-1.index.
func indexOf(file string) string {
	return Indexes + "/" + strings.TrimSuffix(path.Base(file), ".img") + ".index"
}

// pagesOf is the file of pages that an index is of, by the index's name.
func pagesOf(index string) string {
	return CRIU + "/" + strings.TrimSuffix(index, ".index") + ".img"
}

func isIndex(file string) bool { return strings.HasPrefix(file, Indexes+"/") }

func (s Store) packs() pack.Dir { return pack.Dir(filepath.Join(s.Dir, ".packs")) }

// OpenPages opens one of the image's files for which IsPages is true: the one
// door for who reads memory pages. What it returns stays readable when the
// image is packed, or removed, meanwhile.
func (i *Image) OpenPages(file string) (Pages, error) {
	if !IsPages(file) {
		return nil, fmt.Errorf("image %s: %s is no file of pages", i.Ref(), file)
	}
	f, err := os.Open(filepath.Join(i.Dir(), file))
	if os.IsNotExist(err) {
		return i.openPacked(file)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, i.damaged(file, "is no file")
	}
	return plainPages{f, info.Size()}, nil
}

// plainPages is a file of pages as CRIU has written it.
type plainPages struct {
	*os.File
	size int64
}

func (p plainPages) Size() int64 { return p.size }

// isPacked: a file of pages is there by its index only.
func (i *Image) isPacked(file string) bool {
	if !IsPages(file) {
		return false
	}
	if _, err := os.Lstat(filepath.Join(i.Dir(), file)); !os.IsNotExist(err) {
		return false
	}
	_, err := os.Lstat(filepath.Join(i.Dir(), indexOf(file)))
	return err == nil
}

// index reads the index of a file of pages.
func (i *Image) index(file string) (*pack.Index, error) {
	b, err := os.ReadFile(filepath.Join(i.Dir(), indexOf(file)))
	if os.IsNotExist(err) {
		return nil, i.damaged(file, "is missing")
	}
	var where *os.PathError
	if errors.As(err, &where) && !os.IsPermission(err) {
		return nil, i.damaged(indexOf(file), "cannot be read: "+where.Err.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	x, err := pack.Decode(b)
	if err != nil {
		return nil, i.damaged(indexOf(file), err.Error())
	}
	return x, nil
}

func (i *Image) openPacked(file string) (Pages, error) {
	var err error
	// A pack may be replaced between the index and it: then the index is another
	// one by now.
	for range 3 {
		var x *pack.Index
		if x, err = i.index(file); err != nil {
			return nil, err
		}
		var r *pack.Reader
		if r, err = i.store.packs().Open(x); err == nil {
			return packedPages{r, i, file}, nil
		}
		if gone := (*pack.Error)(nil); !errors.As(err, &gone) || !gone.Missing {
			break
		}
	}
	return nil, i.packError(file, err)
}

// packedPages is a file of pages of which the store has the index.
type packedPages struct {
	*pack.Reader
	i    *Image
	file string
}

func (p packedPages) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.Reader.ReadAt(b, off)
	return n, p.i.packError(p.file, err)
}

// packError says of a damaged pack which image that harms.
func (i *Image) packError(file string, err error) error {
	var bad *pack.Error
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.As(err, &bad):
		return i.damaged(file, "is packed, and "+bad.Error())
	}
	return fmt.Errorf("image %s: %s: %w", i.Ref(), file, err)
}
