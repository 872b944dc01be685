package filesystem

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

// part is a part of a file that has data.
type part struct{ offset, length int64 }

const partHeader = 16

// dataParts finds the data of a file: lseek(2), SEEK_DATA and SEEK_HOLE.
func dataParts(f int, size int64) ([]part, error) {
	var parts []part
	for at := int64(0); at < size; {
		data, err := unix.Seek(f, at, unix.SEEK_DATA)
		if err == unix.ENXIO { // nothing but a hole
			break
		}
		if err != nil {
			return nil, err
		}
		end, err := unix.Seek(f, data, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		if data >= size {
			break
		}
		end = min(end, size)
		parts = append(parts, part{data, end - data})
		at = end
	}
	return parts, nil
}

// sparse saves a file with holes.
func (s *saver) sparse(h *tar.Header, f int, parts []part) error {
	h.PAXRecords[recordSparse] = strconv.FormatInt(h.Size, 10)
	h.Size = 0
	for _, p := range parts {
		h.Size += partHeader + p.length
	}
	if err := s.header(h); err != nil {
		return err
	}
	for _, p := range parts {
		var b [partHeader]byte
		binary.LittleEndian.PutUint64(b[:], uint64(p.offset))
		binary.LittleEndian.PutUint64(b[8:], uint64(p.length))
		if _, err := s.tar.Write(b[:]); err != nil {
			return err
		}
		if err := s.content(f, p, h.Name); err != nil {
			return err
		}
	}
	return nil
}

// sparse loads a file with holes, of which the archive says anything it likes.
func (l *loader) sparse(f int, h *tar.Header) error {
	size, err := strconv.ParseInt(h.PAXRecords[recordSparse], 10, 64)
	if err != nil || size < 0 {
		return fmt.Errorf("has the size %q", h.PAXRecords[recordSparse])
	}
	if err := unix.Ftruncate(f, size); err != nil {
		return err
	}
	last := int64(0)
	for rest := h.Size; rest > 0; {
		var b [partHeader]byte
		if _, err := io.ReadFull(l.tar, b[:]); err != nil {
			return fmt.Errorf("read a part: %w", noEOF(err))
		}
		offset, length := int64(binary.LittleEndian.Uint64(b[:])), int64(binary.LittleEndian.Uint64(b[8:]))
		rest -= partHeader
		if offset < last || length <= 0 || length > rest || length > size-offset {
			return fmt.Errorf("has a part of %d bytes at %d, of %d in the archive and %d in the file", length, offset, rest, size)
		}
		if err := l.content(f, part{offset, length}); err != nil {
			return err
		}
		last, rest = offset+length, rest-length
	}
	return nil
}
