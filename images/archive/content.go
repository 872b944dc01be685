package archive

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"

	"crucible/images"
	"crucible/images/blake3"
	"crucible/proto/imagepb"
)

// content is a file of an image that is read in parts, in any order, and
// compared with its digest when the last of them has been.
type content struct {
	ref    string
	file   *imagepb.File
	source source
	values []blake3.Value
	left   atomic.Int64 // bytes that nobody has read yet
}

// source is where a file's bytes are.
type source interface {
	io.ReaderAt
	io.Closer
}

func newContent(ref string, f *imagepb.File, source source) *content {
	c := &content{ref: ref, file: f, source: source}
	c.left.Store(int64(f.Size))
	if f.Size > blake3.BlockSize {
		c.values = make([]blake3.Value, (f.Size+blake3.BlockSize-1)/blake3.BlockSize)
	}
	return c
}

// read fills buf from a place where a block begins, to where one ends or the
// file does.
func (c *content) read(buf []byte, at int64) error {
	if n, err := c.source.ReadAt(buf, at); n < len(buf) {
		if err == io.EOF {
			return c.damaged(fmt.Sprintf("has %d bytes and had %d", at+int64(n), c.file.Size))
		}
		return err
	}
	if c.values == nil {
		return c.finish(blake3.Sum(buf))
	}
	size := int64(len(buf))
	for n := at / blake3.BlockSize; len(buf) > 0; n++ {
		block := buf[:min(len(buf), blake3.BlockSize)]
		c.values[n], buf = blake3.Block(block, uint64(n)), buf[len(block):]
	}
	if c.left.Add(-size) > 0 {
		return nil
	}
	return c.finish(blake3.Join(c.values))
}

// finish compares and closes the file, after its last byte.
func (c *content) finish(sum [blake3.Size]byte) error {
	n, err := c.source.ReadAt(make([]byte, 1), int64(c.file.Size))
	c.source.Close()
	switch {
	case n > 0:
		return c.damaged(fmt.Sprintf("is longer than the %d bytes that it had", c.file.Size))
	case err != io.EOF:
		return err
	case !bytes.Equal(sum[:], c.file.Digest):
		return c.damaged("has changed: its digest is another one")
	}
	return nil
}

func (c *content) damaged(text string) error {
	return &images.Error{Kind: images.Damaged, Ref: c.ref, File: c.file.Path, Text: text,
		Advice: "take another image, or a copy of this one"}
}
