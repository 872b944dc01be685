package images

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Pages is the content of one of CRIU's files of pages, however the store
// keeps it. Any number of goroutines may read it; many bytes at a time are faster.
type Pages interface {
	io.ReaderAt
	io.Closer
	// Size is the content's, in bytes.
	Size() int64
}

// OpenPages opens one of the image's files for which IsPages is true: the one
// door for who reads memory pages.
func (i *Image) OpenPages(file string) (Pages, error) {
	if !IsPages(file) {
		return nil, fmt.Errorf("image %s: %s is no file of pages", i.Ref(), file)
	}
	f, err := os.Open(filepath.Join(i.Dir(), file))
	if os.IsNotExist(err) {
		return nil, i.damaged(file, "is missing")
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
