package memory

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Change is how a page of one space is not that of another.
type Change uint8

const (
	// Changed: both have it, with other bytes.
	Changed Change = iota + 1
	// Added: only the second one has it, Removed: only the first one.
	Added
	Removed
)

// Difference is a number of pages next to each other that differ in one way.
type Difference struct {
	Addr   uint64 // in the second space
	Pages  uint64
	Change Change
}

// Window is a part of two spaces that belongs together.
type Window struct {
	A, B   *Space
	FromA  uint64
	FromB  uint64
	Length uint64
	// Zero: a page that was not dumped holds zeros. Else it may hold anything,
	// and is another one than any that was.
	Zero bool
}

// Compared is the result of Compare.
type Compared struct {
	// Differences by address, each as long as it can be.
	Differences []Difference
	// Same are the pages that at least one has and that are the same in both;
	// Shared are those of them that are in the same place of the same file.
	Same, Shared uint64
}

// piece is a part of a window that both have, or one of them.
type piece struct {
	offset, length uint64 // in the window
	a, b           *Run
}

// Compare compares two spaces page by page. What both have from the same image
// of a chain is not read; all processors read the rest.
func (w Window) Compare(ctx context.Context) (*Compared, error) {
	size := w.A.memory.pageSize
	if size != w.B.memory.pageSize || (w.FromA-w.FromB)%size != 0 {
		return nil, fmt.Errorf("pages of %d bytes cannot be compared with pages of %d", size, w.B.memory.pageSize)
	}
	out := &Compared{}
	var pieces []piece
	for _, p := range w.pieces() {
		if p.a != nil && p.b != nil && sameSource(*p.a, *p.b, w.A.memory, w.B.memory) {
			out.Shared += p.length / size
			continue
		}
		for p.length > block {
			pieces = append(pieces, p.part(0, block))
			p = p.part(block, p.length)
		}
		pieces = append(pieces, p)
	}
	found, err := w.read(ctx, pieces)
	if err != nil {
		return nil, err
	}
	out.Same = out.Shared
	for n, list := range found {
		differ := uint64(0)
		for _, d := range list {
			differ += d.Pages
			last := len(out.Differences) - 1
			if last >= 0 && out.Differences[last].Change == d.Change && out.Differences[last].Addr+out.Differences[last].Pages*size == d.Addr {
				out.Differences[last].Pages += d.Pages
			} else {
				out.Differences = append(out.Differences, d)
			}
		}
		out.Same += pieces[n].length/size - differ
	}
	return out, nil
}

// sameSource tells whether two runs are the same bytes of the same file.
func sameSource(a, b Run, am, bm *Memory) bool {
	return a.File == b.File && a.Offset == b.Offset && am.chain[a.Layer].Dir() == bm.chain[b.Layer].Dir()
}

// pieces cuts the window where a run of either begins or ends, and leaves out
// what neither has. Pages that stayed with their process are no pages here.
func (w Window) pieces() (all []piece) {
	remote := func(r Run) bool { return r.Remote }
	a := slices.DeleteFunc(w.A.Between(w.FromA, w.FromA+w.Length), remote)
	b := slices.DeleteFunc(w.B.Between(w.FromB, w.FromB+w.Length), remote)
	size, at := w.A.memory.pageSize, uint64(0)
	// next is where the first run of a list begins or ends, behind at.
	next := func(runs []Run, base uint64) (begin, end uint64) {
		if len(runs) == 0 {
			return w.Length, w.Length
		}
		return max(at, runs[0].Addr-base), runs[0].end(size) - base
	}
	for at < w.Length && len(a)+len(b) > 0 {
		beginA, endA := next(a, w.FromA)
		beginB, endB := next(b, w.FromB)
		at = min(beginA, beginB)
		p := piece{offset: at}
		to := max(endA, endB)
		for _, side := range []struct {
			runs             []Run
			begin, end, base uint64
			to               **Run
		}{{a, beginA, endA, w.FromA, &p.a}, {b, beginB, endB, w.FromB, &p.b}} {
			switch {
			case len(side.runs) == 0:
			case side.begin > at:
				to = min(to, side.begin)
			default:
				to = min(to, side.end)
				r := side.runs[0].part(at+side.base, side.end+side.base, size)
				*side.to = &r
			}
		}
		p.length, at = to-at, to
		all = append(all, p)
		if endA <= at && len(a) > 0 {
			a = a[1:]
		}
		if endB <= at && len(b) > 0 {
			b = b[1:]
		}
	}
	return all
}

// part is the piece between two offsets in it.
func (p piece) part(from, to uint64) piece {
	part := func(r *Run) *Run {
		if r == nil {
			return nil
		}
		c := *r
		c.Addr, c.Offset = c.Addr+from, c.Offset+int64(from)
		return &c
	}
	return piece{p.offset + from, to - from, part(p.a), part(p.b)}
}

// read compares each piece, on all processors.
func (w Window) read(ctx context.Context, pieces []piece) ([][]Difference, error) {
	found := make([][]Difference, len(pieces))
	errs := make([]error, min(runtime.GOMAXPROCS(0), len(pieces)))
	var next atomic.Int64
	var workers sync.WaitGroup
	for n := range errs {
		workers.Add(1)
		go func() {
			defer workers.Done()
			bufs := [2][]byte{make([]byte, block), make([]byte, block)}
			for {
				i := int(next.Add(1)) - 1
				if i >= len(pieces) {
					return
				}
				if errs[n] = ctx.Err(); errs[n] == nil {
					found[i], errs[n] = w.compare(pieces[i], bufs)
				}
				if errs[n] != nil {
					next.Store(int64(len(pieces))) // the others stop, too
					return
				}
			}
		}()
	}
	workers.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return nil, errs[i]
	}
	return found, nil
}

// compare compares a piece.
func (w Window) compare(p piece, bufs [2][]byte) ([]Difference, error) {
	size := w.A.memory.pageSize
	sides := [2][]byte{bufs[0][:p.length], bufs[1][:p.length]}
	for n, r := range []*Run{p.a, p.b} {
		if r == nil {
			clear(sides[n])
			continue
		}
		if _, err := []*Space{w.A, w.B}[n].Read(*r, sides[n], 0); err != nil {
			return nil, fmt.Errorf("compare memory: %w", err)
		}
	}
	change := Changed
	if p.a == nil {
		change = Added
	} else if p.b == nil {
		change = Removed
	}
	all := w.FromB + p.offset
	if change != Changed && !w.Zero {
		return []Difference{{all, p.length / size, change}}, nil
	}
	if bytes.Equal(sides[0], sides[1]) {
		return nil, nil
	}
	var out []Difference
	for at := uint64(0); at < p.length; at += size {
		if bytes.Equal(sides[0][at:at+size], sides[1][at:at+size]) {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Addr+out[n-1].Pages*size == all+at {
			out[n-1].Pages++
		} else {
			out = append(out, Difference{all + at, 1, change})
		}
	}
	return out, nil
}
