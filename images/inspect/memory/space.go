package memory

import (
	"fmt"
	"io"
	"sort"

	"crucible/images"
)

// Run is a number of pages next to each other, in memory and in a file.
type Run struct {
	Addr  uint64
	Pages uint64
	// Layer is the image that has them: see Memory.Image.
	Layer int
	// File and Offset say where there, such as pages-1.img.
	File   string
	Offset int64
	// Remote: they are in no image. They stayed with the process, to be sent
	// after a restore (CRIU's --lazy-pages).
	Remote bool

	pages images.Pages // nil: remote, or (within this package) in the next layer
}

// End is the address behind it.
func (r Run) end(pageSize uint64) uint64 { return r.Addr + r.Pages*pageSize }

// part is the run between two addresses that lie in it.
func (r Run) part(from, to, pageSize uint64) Run {
	if r.pages != nil {
		r.Offset += int64(from - r.Addr)
	}
	r.Addr, r.Pages = from, (to-from)/pageSize
	return r
}

// gapError is a page that an image has from its parent, which has it not.
type gapError struct {
	layer int
	addr  uint64
}

func (e *gapError) Error() string {
	return fmt.Sprintf("no page at %x in layer %d", e.addr, e.layer+1)
}

// flatten puts the layers on top of each other. The result has no more runs than
// all layers together have bounds.
func flatten(layers [][]Run, pageSize uint64) ([]Run, error) {
	if len(layers) == 0 {
		return nil, nil
	}
	// From below: each layer needs that of its parent whole.
	var below []Run
	for n := len(layers) - 1; n >= 0; n-- {
		var flat []Run
		next := 0 // the first run below that ends behind what is looked for
		for _, r := range layers[n] {
			if r.pages != nil || r.Remote {
				flat = append(flat, r)
				continue
			}
			for addr, end := r.Addr, r.end(pageSize); addr < end; {
				for next < len(below) && below[next].end(pageSize) <= addr {
					next++
				}
				if next == len(below) || below[next].Addr > addr {
					return nil, &gapError{n, addr}
				}
				to := min(end, below[next].end(pageSize))
				flat = append(flat, below[next].part(addr, to, pageSize))
				addr = to
			}
		}
		below = flat
	}
	return below, nil
}

// Space is the memory of a process, or an object of shared memory.
type Space struct {
	memory *Memory
	runs   []Run
}

// Runs are all pages that were dumped, by address. Do not change them.
func (s *Space) Runs() []Run { return s.runs }

// Between are the runs, or parts of them, between two addresses, which are cut
// to whole pages.
func (s *Space) Between(from, to uint64) (runs []Run) {
	size := s.memory.pageSize
	from, to = from/size*size, min(to, maxAddr)
	to = (to + size - 1) / size * size
	if from >= to {
		return nil
	}
	for n := s.find(from); n < len(s.runs) && s.runs[n].Addr < to; n++ {
		r := s.runs[n]
		runs = append(runs, r.part(max(from, r.Addr), min(to, r.end(size)), size))
	}
	return runs
}

// find is the first run that ends behind an address.
func (s *Space) find(addr uint64) int {
	return sort.Search(len(s.runs), func(n int) bool { return s.runs[n].end(s.memory.pageSize) > addr })
}

// Absent is the error of bytes that are in no image.
type Absent struct {
	Addr uint64
	// Remote: see Run.
	Remote bool
}

func (e *Absent) Error() string {
	if e.Remote {
		return fmt.Sprintf("the page at %x stayed with the process", e.Addr)
	}
	return fmt.Sprintf("no page at %x was dumped", e.Addr)
}

// ReadAt reads what is at an address. Like io.ReaderAt it reads all or says why
// not: what follows the n bytes is *Absent, or the image cannot be read.
func (s *Space) ReadAt(p []byte, addr int64) (n int, err error) {
	if addr < 0 {
		return 0, &Absent{Addr: uint64(addr)}
	}
	at := uint64(addr)
	for i := s.find(at); len(p) > n; i++ {
		if i == len(s.runs) || s.runs[i].Addr > at {
			return n, &Absent{Addr: at}
		}
		r := s.runs[i]
		want := min(uint64(len(p)-n), r.end(s.memory.pageSize)-at)
		got, err := s.Read(r, p[n:n+int(want)], int64(at-r.Addr))
		n, at = n+got, at+uint64(got)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Read reads bytes of a run, from an offset in it on.
func (s *Space) Read(r Run, p []byte, offset int64) (int, error) {
	if r.pages == nil {
		return 0, &Absent{Addr: r.Addr + uint64(offset), Remote: r.Remote}
	}
	n, err := r.pages.ReadAt(p, r.Offset+offset)
	if n == len(p) {
		return n, nil
	}
	if err == nil || err == io.EOF { // it was long enough before
		err = io.ErrUnexpectedEOF
	}
	i := s.memory.chain[r.Layer]
	return n, fmt.Errorf("image %s: %s: %w", i.Ref(), r.File, err)
}
