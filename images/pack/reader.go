package pack

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Reader reads a file of pages by its index. Any number of goroutines may use it.
type Reader struct {
	x     *Index
	packs []*file
	zstd  *zstd.Decoder

	mu     sync.Mutex
	frames map[frameKey]*cached
	asked  int // how often frames were asked for
}

// frameKey names a frame among the reader's packs.
type frameKey struct{ pack, frame int }

// cached is a frame's pages, once done is closed.
type cached struct {
	done  chan struct{}
	pages []byte
	err   error
	asked int // at which time for the last time: see Reader
}

// cacheFrames bounds the frames that are kept: 32 MiB. Who reads from the
// beginning to the end needs one frame of each pack at a time.
const cacheFrames = 128

// Open opens what an index describes. All of its packs are open then: that one
// of them is removed does no harm.
func (d Dir) Open(x *Index) (*Reader, error) {
	r := &Reader{x: x, frames: map[frameKey]*cached{}}
	var err error
	r.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecoderMaxMemory(frameSize), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	for _, id := range x.Packs {
		p, err := d.open(id, false)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.packs = append(r.packs, p)
	}
	for i, run := range x.runs {
		if run.pack == zeros {
			continue
		}
		p := r.packs[run.pack]
		if last := int(run.first) + int(x.end(i)-run.page) - 1; last >= p.pages {
			return nil, errors.Join(p.damaged("has %d pages, and page %d was looked for", p.pages, last), r.Close())
		}
	}
	return r, nil
}

// Size is the size of the file of pages.
func (r *Reader) Size() int64 { return r.x.Size }

// Close closes the packs.
func (r *Reader) Close() error {
	r.zstd.Close()
	var errs []error
	for _, p := range r.packs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// ReadAt is io.ReaderAt. An *Error says which pack is damaged.
func (r *Reader) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read pages: negative offset %d", off)
	}
	for run := -1; n < len(b); {
		at := off + int64(n)
		if at >= r.x.Size {
			return n, io.EOF
		}
		page := uint32(at / PageSize)
		if run < 0 || page >= r.x.end(run) {
			run = r.x.find(page)
		}
		m, err := r.readRun(b[n:], run, at)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readRun reads from offset at of the file as far as one run and one frame go.
func (r *Reader) readRun(b []byte, run int, at int64) (int, error) {
	one := r.x.runs[run]
	b = b[:min(int64(len(b)), int64(r.x.end(run))*PageSize-at)]
	if one.pack == zeros {
		clear(b)
		return len(b), nil
	}
	inPack := int64(one.first)*PageSize + at - int64(one.page)*PageSize
	pages, err := r.frame(frameKey{int(one.pack), int(inPack / frameSize)})
	if err != nil {
		return 0, err
	}
	return copy(b, pages[inPack%frameSize:]), nil
}

// frame returns a frame's pages. Who asks for one that another is reading waits.
func (r *Reader) frame(k frameKey) ([]byte, error) {
	r.mu.Lock()
	c, ok := r.frames[k]
	if !ok {
		c = &cached{done: make(chan struct{})}
		r.makeRoom()
		r.frames[k] = c
	}
	r.asked++
	c.asked = r.asked
	r.mu.Unlock()
	if !ok {
		c.pages, c.err = r.packs[k.pack].read(k.frame, r.zstd)
		close(c.done)
	}
	<-c.done
	return c.pages, c.err
}

// makeRoom drops the frame that nobody has asked for for the longest time.
func (r *Reader) makeRoom() {
	if len(r.frames) < cacheFrames {
		return
	}
	var oldest frameKey
	asked := r.asked + 1
	for k, c := range r.frames {
		if c.asked < asked {
			oldest, asked = k, c.asked
		}
	}
	delete(r.frames, oldest)
}

// read returns a frame's pages.
func (p *file) read(n int, d *zstd.Decoder) ([]byte, error) {
	size := p.rawLen(n)
	stored, err := p.stored(n, make([]byte, p.frames[n].len))
	if err != nil || len(stored) == size {
		return stored, err
	}
	pages, err := d.DecodeAll(stored, make([]byte, 0, size))
	if err == nil && len(pages) != size {
		err = fmt.Errorf("%d bytes instead of %d", len(pages), size)
	}
	if err != nil {
		return nil, p.damaged("has changed: its frame %d: %v", n, err)
	}
	return pages, nil
}
