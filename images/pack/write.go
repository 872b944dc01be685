package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"crucible/images/blake3"
)

// writer writes a pack.
type writer struct {
	dir     Dir
	workers int
	pages   int
	sum     func(page int) sum
	// read reads pages from the first on; several goroutines call it.
	read func(b []byte, first int) error
}

// write writes the pack, under a name that says that it is not whole yet, waits
// until the disk has it, and names it.
func (w *writer) write(ctx context.Context) (id ID, size int64, err error) {
	if err := os.MkdirAll(string(w.dir), 0o700); err != nil {
		return id, 0, err
	}
	f, err := os.CreateTemp(string(w.dir), Unfinished)
	if err != nil {
		return id, 0, err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	head := binary.LittleEndian.AppendUint64([]byte(headMagic), version)
	if _, err := f.Write(head); err != nil {
		return id, 0, err
	}
	frames, size, err := w.writeFrames(ctx, f)
	if err != nil {
		return id, 0, err
	}
	table := w.table(frames, size)
	if _, err := f.Write(table); err != nil {
		return id, 0, err
	}
	full := blake3.Sum(table)
	id, size = ID(full[:sumSize]), size+int64(len(table))
	if err := errors.Join(f.Chmod(0o400), f.Sync()); err != nil {
		return id, 0, err
	}
	if err := os.Rename(f.Name(), w.dir.Path(id)); err != nil {
		return id, 0, err
	}
	return id, size, syncDir(string(w.dir))
}

// syncDir waits until the disk knows the names in a directory.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// table is the end of the pack, behind its frames.
func (w *writer) table(frames []frame, at int64) []byte {
	b := make([]byte, 0, tableLen(w.pages))
	for _, f := range frames {
		b = binary.LittleEndian.AppendUint32(b, f.len)
		b = binary.LittleEndian.AppendUint32(b, f.crc)
	}
	order := make([]uint32, w.pages)
	for n := range order {
		s := w.sum(n)
		b = append(b, s[:]...)
		order[n] = uint32(n)
	}
	slices.SortFunc(order, func(x, y uint32) int {
		one, other := w.sum(int(x)), w.sum(int(y))
		return bytes.Compare(one[:], other[:])
	})
	for _, n := range order {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = binary.LittleEndian.AppendUint64(b, uint64(w.pages))
	return append(b, footMagic...)
}

// frameWriter puts compressed frames behind each other in their order, though
// several goroutines compress them: who is done early waits for its turn.
type frameWriter struct {
	f      *os.File
	at     int64
	begun  int64 // until where the disk has been told to write
	frames []frame

	mu     sync.Mutex
	turn   *sync.Cond
	failed bool
}

// put writes frame n once those before it are written.
func (w *frameWriter) put(n int, b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.frames) < n && !w.failed {
		w.turn.Wait()
	}
	defer w.turn.Broadcast()
	if w.failed {
		return nil // the one that failed says why
	}
	if _, err := w.f.Write(b); err != nil {
		w.failed = true
		return err
	}
	w.frames = append(w.frames, frame{w.at, uint32(len(b)), checksum(b)})
	w.at += int64(len(b))
	if w.at-w.begun >= 8<<20 {
		// The disk begins now, and not when we wait for it in the end. It is no
		// more than advice: not every filesystem takes it.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.begun, w.at-w.begun, unix.SYNC_FILE_RANGE_WRITE)
		w.begun = w.at
	}
	return nil
}

// fail lets nobody wait for a frame that will not come.
func (w *frameWriter) fail() {
	w.mu.Lock()
	w.failed = true
	w.mu.Unlock()
	w.turn.Broadcast()
}

// writeFrames compresses the pages on all processors, and returns where the
// frames are and where they end.
func (w *writer) writeFrames(ctx context.Context, f *os.File) ([]frame, int64, error) {
	// The digest of the whole finds what a checksum in each frame would.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(w.workers), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(frameSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, 0, err
	}
	defer encoder.Close()
	out := &frameWriter{f: f, at: headLen}
	out.turn = sync.NewCond(&out.mu)
	err = parallel(ctx, framesOf(w.pages), w.workers, func() func(int) error {
		pages, room := make([]byte, frameSize), make([]byte, 0, frameSize+1024)
		return func(n int) error {
			b := pages[:min(FramePages, w.pages-n*FramePages)*PageSize]
			if err := w.read(b, n*FramePages); err != nil {
				out.fail()
				return err
			}
			if small := encoder.EncodeAll(b, room); len(small) < len(b) {
				b = small
			}
			return out.put(n, b)
		}
	})
	return out.frames, out.at, err
}
