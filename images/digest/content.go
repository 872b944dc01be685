package digest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"crucible/images/blake3"
)

// Content digests what is read from r, on so many processors (0: all). If each
// is not nil it is called for every block, by several goroutines, and the block is
// its own until it returns.
func Content(ctx context.Context, r io.ReaderAt, size int64, workers int, each func(block []byte, at int64) error) (sum [blake3.Size]byte, err error) {
	blocks := int((size + blake3.BlockSize - 1) / blake3.BlockSize)
	values := make([]blake3.Value, blocks)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	one := func(n int, buf []byte) error {
		at := int64(n) * blake3.BlockSize
		b := buf[:min(blake3.BlockSize, size-at)]
		if got, err := r.ReadAt(b, at); got < len(b) {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("digest: has become shorter than %d bytes while it was read", size)
			}
			return err
		}
		if blocks == 1 {
			sum = blake3.Sum(b)
		} else {
			values[n] = blake3.Block(b, uint64(n))
		}
		if each == nil {
			return nil
		}
		return each(b, at)
	}
	for range min(blocks, cmp.Or(workers, runtime.GOMAXPROCS(0))) {
		wg.Go(func() {
			buf := make([]byte, blake3.BlockSize)
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= blocks {
					return
				}
				if err := one(n, buf); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	switch {
	case ctx.Err() != nil:
		return sum, context.Cause(ctx)
	case blocks == 0:
		return blake3.Sum(nil), nil
	case blocks > 1:
		return blake3.Join(values), nil
	}
	return sum, nil
}
