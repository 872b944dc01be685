package archive

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/klauspost/compress/zstd"

	"crucible/images/blake3"
)

// frameSize is how much of the plain stream is in one frame of zstd, which can
// be read without the others. It is whole blocks of blake3's.
const frameSize = 16 * blake3.BlockSize

// The seek table of the seekable format: a skippable frame at the end that has
// the two sizes of every frame (zstd, contrib/seekable_format).
const (
	seekFrameMagic = 0x184D2A5E
	seekTableMagic = 0x8F92EAB1
)

// frames writes a stream of zstd frames, which several goroutines compress.
// Whoever writes to it fills a frame and is done with it: memory is bounded by
// the number of goroutines. It is one goroutine's.
type frames struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	encoder *zstd.Encoder
	next    *batch // being filled
	todo    chan *batch
	inOrder chan *batch
	done    sync.WaitGroup
	table   []byte
	written int64
	plain   func(n int) // told of every frame that has been written
}

// batch is what becomes one frame: pieces, one behind the other.
type batch struct {
	pieces []piece
	size   int
	packed chan []byte
}

// piece is bytes, or a part of a file that is read when it is compressed.
type piece struct {
	bytes []byte
	file  *content
	at    int64
	size  int
}

// newFrames begins a stream to w.
func newFrames(ctx context.Context, w io.Writer, workers int, plain func(int)) (*frames, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(workers), zstd.WithEncoderCRC(true),
		zstd.WithWindowSize(frameSize))
	if err != nil {
		return nil, err
	}
	f := &frames{encoder: encoder, todo: make(chan *batch), inOrder: make(chan *batch, 2*workers), plain: plain}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	for range workers {
		f.done.Go(f.compress)
	}
	f.done.Go(func() { f.write(w) })
	return f, nil
}

// add puts a piece behind the others, which nobody may change any more.
func (f *frames) add(p piece) error {
	if f.next != nil && f.next.size+p.size > frameSize {
		if err := f.flush(); err != nil {
			return err
		}
	}
	if f.next == nil {
		f.next = &batch{packed: make(chan []byte, 1)}
	}
	f.next.pieces = append(f.next.pieces, p)
	f.next.size += p.size
	return context.Cause(f.ctx)
}

// flush ends the frame: what comes next begins another.
func (f *frames) flush() error {
	if f.next == nil {
		return nil
	}
	for _, to := range []chan *batch{f.inOrder, f.todo} {
		select {
		case to <- f.next:
		case <-f.ctx.Done():
			return context.Cause(f.ctx)
		}
	}
	f.next = nil
	return nil
}

// close ends the stream with its seek table, or gives up. It returns how many
// bytes were written.
func (f *frames) close(err error) (int64, error) {
	if err == nil {
		err = f.flush()
	}
	if err != nil {
		f.cancel(err)
	}
	close(f.todo)
	close(f.inOrder)
	f.done.Wait()
	cause := context.Cause(f.ctx)
	f.cancel(nil)
	_ = f.encoder.Close()
	return f.written, cause
}

// compress is a worker.
func (f *frames) compress() {
	buf := make([]byte, 0, frameSize)
	for b := range f.todo {
		var err error
		buf = buf[:0]
		for _, p := range b.pieces {
			if buf, err = p.appendTo(buf); err != nil {
				f.cancel(err)
				return
			}
		}
		b.packed <- f.encoder.EncodeAll(buf, nil)
	}
}

func (p *piece) appendTo(buf []byte) ([]byte, error) {
	if p.file == nil {
		return append(buf, p.bytes...), nil
	}
	n := len(buf)
	buf = buf[:n+p.size]
	return buf, p.file.read(buf[n:], p.at)
}

// write writes the frames in their order.
func (f *frames) write(w io.Writer) {
	for b := range f.inOrder {
		var packed []byte
		select {
		case packed = <-b.packed:
		case <-f.ctx.Done():
			return
		}
		if !f.writeOne(w, packed) {
			return
		}
		f.table = binary.LittleEndian.AppendUint32(f.table, uint32(len(packed)))
		f.table = binary.LittleEndian.AppendUint32(f.table, uint32(b.size))
		f.plain(b.size)
	}
	if f.ctx.Err() == nil {
		f.writeTable(w)
	}
}

func (f *frames) writeOne(w io.Writer, b []byte) bool {
	n, err := w.Write(b)
	f.written += int64(n)
	if err != nil {
		f.cancel(err)
	}
	return err == nil
}

func (f *frames) writeTable(w io.Writer) {
	const entry, footer = 8, 9
	if len(f.table) > math.MaxInt32 {
		f.cancel(fmt.Errorf("%d frames are too many", len(f.table)/entry))
		return
	}
	head := binary.LittleEndian.AppendUint32(nil, seekFrameMagic)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(f.table)+footer))
	tail := binary.LittleEndian.AppendUint32(nil, uint32(len(f.table)/entry))
	tail = append(tail, 0) // no checksums here: each frame has its own
	tail = binary.LittleEndian.AppendUint32(tail, seekTableMagic)
	f.writeOne(w, append(append(head, f.table...), tail...))
}
