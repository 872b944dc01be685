package criufile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// File is a file of CRIU's that is being read, one entry after the other.
type File struct {
	path    string
	kind    Kind
	head    head
	close   func() error
	r       *bufio.Reader
	size    int64
	left    int64 // bytes of the file that have not been read
	entry   int   // the number of the last entry that was read, from 1
	four    [4]byte
	message []byte
	extra   []byte // its payload, if it has been read
	pending int64  // bytes of its payload that have not been read
	of      *message
}

// Entry is one entry of a file.
type Entry struct {
	// Type is the message's name, "pstree_entry".
	Type string
	// Message is the message in protobuf. The next call of Next overwrites it.
	Message []byte
	// Extra is the payload, as it is in the file.
	Extra []byte
}

// Open opens a file. That it is of CRIU's its head says, but for raw files, which have
// none: their names do.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &Error{Problem: Foreign, Path: path, Text: "is not a regular file"}
	}
	var file *File
	if err == nil {
		file, err = NewFile(f, info.Size(), path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	file.close = f.Close
	return file, nil
}

// NewFile reads a file from a reader, of which it takes size bytes. The path is
// for raw files and errors.
func NewFile(r io.Reader, size int64, path string) (*File, error) {
	f := &File{path: path, size: size, left: size, close: func() error { return nil }}
	var raw bool
	if f.kind, raw = rawKind(filepath.Base(path)); raw {
		return f, nil
	}
	f.r = bufio.NewReaderSize(r, int(min(max(size, 16), 64<<10)))
	if err := f.readHead(); err != nil {
		return nil, f.at(err)
	}
	return f, nil
}

// Kind is what the file holds.
func (f *File) Kind() Kind { return f.kind }

// Size is the file's, in bytes.
func (f *File) Size() int64 { return f.size }

// Close closes the file.
func (f *File) Close() error { return f.close() }

func (f *File) readHead() error {
	magic, err := f.number()
	if err != nil {
		return problem(Foreign, "is no file of CRIU's: it has no magic number")
	}
	switch magic {
	case magicCommon:
		f.head = headCommon
	case magicService:
		f.head = headService
	}
	if f.head != headNone {
		if magic, err = f.number(); err != nil {
			return problem(Damaged, "ends after the first magic number")
		}
	}
	known := false
	if f.kind, known = kindOf(func(k Kind) bool { return !k.Raw() && k.Magic == magic }); !known {
		return problem(Foreign, "is no file of CRIU's that is known: it begins with the magic number %08X", magic)
	}
	return nil
}

// number reads four bytes. At the end of the file it is io.EOF.
func (f *File) number() (uint32, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	if err := f.read(f.four[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(f.four[:]), nil
}

func (f *File) read(b []byte) error {
	if int64(len(b)) > f.left {
		return problem(Damaged, "%d bytes are missing at the end of the file", int64(len(b))-f.left)
	}
	n, err := io.ReadFull(f.r, b)
	f.left -= int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return problem(Damaged, "the file has become shorter")
	}
	return err
}

// Next reads the next entry, with its payload. After the last one, and for a
// raw file at once, it returns io.EOF.
func (f *File) Next() (Entry, error) {
	if err := f.next(); err != nil {
		return Entry{}, err
	}
	e := Entry{Type: f.of.name, Message: f.message, Extra: f.extra}
	if f.pending > 0 {
		e.Extra = make([]byte, f.pending)
		if err := f.readPayload(e.Extra); err != nil {
			return Entry{}, err
		}
	}
	return e, nil
}

// next reads the message of the next entry and leaves its payload, after it
// has passed over that of the one before.
func (f *File) next() error {
	if f.kind.Raw() {
		return io.EOF
	}
	if f.pending > 0 {
		n, err := io.CopyN(io.Discard, f.r, f.pending)
		f.left, f.pending = f.left-n, 0
		if err != nil {
			return f.at(err)
		}
	}
	size, err := f.number()
	if err == io.EOF {
		return io.EOF
	}
	f.entry++
	if err == nil && int64(size) > f.left {
		err = problem(Damaged, "it has %d bytes, and only %d are left in the file", size, f.left)
	}
	if err != nil {
		return f.at(err)
	}
	if cap(f.message) < int(size) {
		f.message = make([]byte, size)
	}
	f.message = f.message[:size]
	if err := f.read(f.message); err != nil {
		return f.at(err)
	}
	if f.entry <= 2 {
		if f.of, err = messageNamed(f.kind.messageOf(f.entry)); err != nil {
			return err
		}
	}
	if err := f.readPayloadSize(); err != nil {
		return f.at(err)
	}
	return nil
}

// readPayloadSize finds out what payload the entry has. That of a queue it reads.
func (f *File) readPayloadSize() (err error) {
	f.extra = nil
	switch f.kind.payload {
	case payloadNone:
		return nil
	case payloadMessages:
		f.extra, err = f.readMessages(numberIn(f.of, f.message, "qnum"))
		return err
	}
	if f.pending, err = payloadSize(f.of, f.message); err != nil {
		return err
	}
	if f.pending == restOfFile {
		f.pending = f.left
	}
	if f.pending > f.left {
		return problem(Damaged, "its payload has %d bytes, and only %d are left in the file", f.pending, f.left)
	}
	return nil
}

// messageOf is the name of the message in an entry.
func (k Kind) messageOf(entry int) string {
	if entry == 1 && k.first != "" {
		return k.first
	}
	return k.message
}

// readPayload reads the next bytes of the entry's payload.
func (f *File) readPayload(b []byte) error {
	f.pending -= int64(len(b))
	if err := f.read(b); err != nil {
		return f.at(err)
	}
	return nil
}

// at says where in which file an error is.
func (f *File) at(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Path, e.Entry = f.path, f.entry
		return e
	}
	return fmt.Errorf("read %s: %w", f.path, err)
}
