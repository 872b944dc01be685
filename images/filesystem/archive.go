package filesystem

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// endOf is the last entry of an archive.
func endOf(entries int) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{recordEnd: strconv.Itoa(entries)}}
}

// reader reads an archive, and knows whether it is whole.
type reader struct {
	*tar.Reader
	entries int
}

// next returns the next entry, or io.EOF at the end of a whole archive.
func (r *reader) next() (*tar.Header, error) {
	h, err := r.Next()
	switch {
	case err == io.EOF:
		return nil, errors.New("read archive: it is cut off, or none of crucible's: its end is missing")
	case err != nil && !errors.Is(err, tar.ErrInsecurePath): // clean looks for itself
		return nil, fmt.Errorf("read archive: %w", noEOF(err))
	case h.Typeflag == tar.TypeXGlobalHeader && h.PAXRecords[recordEnd] != "":
		if want := h.PAXRecords[recordEnd]; want != strconv.Itoa(r.entries) {
			return nil, fmt.Errorf("read archive: it has %d entries of %s", r.entries, want)
		}
		if _, err := r.Next(); err != io.EOF {
			return nil, errors.New("read archive: something follows its end")
		}
		return nil, io.EOF
	}
	r.entries++
	return h, nil
}

// clean is an entry's path, "." for the directory itself.
func clean(name string) (string, error) {
	p := path.Clean(strings.TrimSuffix(name, "/"))
	if name == "" || strings.HasPrefix(name, "/") || !filepath.IsLocal(p) || strings.Contains(p, "\x00") {
		return "", errors.New("its path leads out of the directory")
	}
	return p, nil
}

// noEOF: an end where there should be none.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
