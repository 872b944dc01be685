package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds how far back a frame may refer, and so the memory that it
// takes to read it: zstd uses 8 MiB up to level 19.
const maxWindow = 32 << 20

// Stream is the tar stream of a file, which is compressed with zstd or gzip, or
// not at all. It tells damage from what the file's reader said.
type Stream struct {
	file  *input
	plain *bufio.Reader
	by    string // what it is compressed with
	close func()
}

// input keeps its error.
type input struct {
	r   io.Reader
	err error
}

func (s *input) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Open looks how a file is compressed. Workers are how many processors to use;
// 0: all. The stream is to be closed.
func Open(r io.Reader, workers int) (*Stream, error) {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	s := &Stream{file: &input{r: r}, close: func() {}}
	b := bufio.NewReaderSize(s.file, 1<<20)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(head) == 0 {
		return nil, &Error{Text: "is empty", Advice: "it was not copied whole: copy it again"}
	}
	s.plain, err = b, nil
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		s.by = "gzip"
		var z *gzip.Reader
		if z, err = gzip.NewReader(b); err == nil {
			s.plain = bufio.NewReaderSize(z, 1<<20)
		}
	case bytes.Equal(head, []byte("\x28\xb5\x2f\xfd")), len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte("\x2a\x4d\x18")):
		s.by = "zstd"
		var z *zstd.Decoder
		if z, err = zstd.NewReader(b, zstd.WithDecoderConcurrency(workers), zstd.WithDecoderMaxWindow(maxWindow)); err == nil {
			s.plain, s.close = bufio.NewReaderSize(z, 1<<20), z.Close
		}
	}
	return s, s.explain(err)
}

// First is the name of the first entry, "" if there is none.
func (s *Stream) First() string {
	head, _ := s.plain.Peek(3 * tarBlock) // with a header of PAX's before it
	h, err := tar.NewReader(bytes.NewReader(head)).Next()
	if err != nil {
		return ""
	}
	return h.Name
}

// Close ends the reading; the file itself is the caller's.
func (s *Stream) Close() { s.close() }

func (s *Stream) Read(b []byte) (int, error) {
	n, err := s.plain.Read(b)
	return n, s.explain(err)
}

func (s *Stream) explain(err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case s.file.err != nil:
		return s.file.err
	case s.by == "":
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return cutOff()
	}
	return &Error{Text: fmt.Sprintf("is damaged (%s: %v)", s.by, err), Advice: "copy it again"}
}
