package archive

import (
	"context"
	"io"
	"os"
	"sync"

	"crucible/images/blake3"
)

// part is a part of a file on its way to the disk.
type part struct {
	buf []byte
	at  int64
}

// partSize is what is read before others hash and write it.
const partSize = 4 * blake3.BlockSize

// copy writes size bytes to a new file, and returns the values of its blocks if
// it has several. Reading and writing go on at the same time; blocks of zeros
// become holes.
func (im *importer) copy(out *os.File, r io.Reader, size int64) ([]blake3.Value, error) {
	if size <= blake3.BlockSize {
		buf := make([]byte, size)
		if _, err := io.ReadFull(r, buf); err != nil {
			return nil, err
		}
		_, err := out.Write(buf)
		im.progress(size)
		return nil, err
	}
	if err := out.Truncate(size); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(im.ctx)
	defer cancel(nil)
	values := make([]blake3.Value, (size+blake3.BlockSize-1)/blake3.BlockSize)
	todo, free := make(chan part), make(chan []byte, im.o.Workers+1)
	for range cap(free) {
		free <- make([]byte, partSize)
	}
	var done sync.WaitGroup
	for range im.o.Workers {
		done.Go(func() {
			for p := range todo {
				if err := p.write(out, values); err != nil {
					cancel(err)
				}
				free <- p.buf[:cap(p.buf)]
			}
		})
	}
	for at := int64(0); at < size && ctx.Err() == nil; at += partSize {
		buf := (<-free)[:min(partSize, size-at)]
		if _, err := io.ReadFull(r, buf); err != nil {
			cancel(err)
			break
		}
		todo <- part{buf, at}
		im.progress(int64(len(buf)))
	}
	close(todo)
	done.Wait()
	return values, context.Cause(ctx)
}

// write hashes and writes the blocks of a part.
func (p part) write(out *os.File, values []blake3.Value) error {
	for buf, at := p.buf, p.at; len(buf) > 0; {
		block := buf[:min(len(buf), blake3.BlockSize)]
		values[at/blake3.BlockSize] = blake3.Block(block, uint64(at/blake3.BlockSize))
		if !isZero(block) {
			if _, err := out.WriteAt(block, at); err != nil {
				return err
			}
		}
		buf, at = buf[len(block):], at+int64(len(block))
	}
	return nil
}

func (im *importer) progress(n int64) {
	im.written += n
	if im.o.Progress != nil {
		im.o.Progress(im.written)
	}
}
