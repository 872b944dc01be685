package pack

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sort"

	"crucible/images/blake3"
)

// Content is a file of pages that is to be packed.
type Content struct {
	Pages io.ReaderAt
	Size  int64 // a multiple of PageSize
}

// Options of Add. The zero value works.
type Options struct {
	// Workers is how many processors to use; 0: all.
	Workers int
}

func (o Options) workers() int { return cmp.Or(o.Workers, runtime.GOMAXPROCS(0)) }

// Added says what became of the pages.
type Added struct {
	Pages, Zero, Known, New int
	// Pack has the new ones, and this many bytes. Without new ones there is none.
	Pack  ID
	Bytes int64
}

// place is where a page is.
type place struct {
	pack int32 // of adder.packs, or one of those below
	page uint32
}

const (
	isZero  = -1 // nowhere
	isNew   = -2 // in the pack to be
	unknown = -3
)

// adder is an Add under way. Pages are numbered through all contents.
type adder struct {
	dir    Dir
	o      Options
	parts  []Content
	starts []int // the first page of each content, and the end
	sums   []sum
	places []place
	packs  []ID
	fresh  []uint32 // the pages that the new pack holds, in its order
}

// Add packs files of pages: what no pack of the directory has goes into a new
// one, which is on disk when Add returns.
func (d Dir) Add(ctx context.Context, contents []Content, o Options) ([]*Index, Added, error) {
	a := &adder{dir: d, o: o, parts: contents, starts: []int{0}}
	for _, c := range contents {
		if c.Size%PageSize != 0 || int64(a.pages())+c.Size/PageSize > maxPages {
			return nil, Added{}, fmt.Errorf("pack pages: %d bytes are no whole number of pages, or too many", c.Size)
		}
		a.starts = append(a.starts, a.pages()+int(c.Size/PageSize))
	}
	var out Added
	if err := a.digest(ctx); err != nil {
		return nil, out, err
	}
	order := a.order()
	if err := a.find(ctx, order); err != nil {
		return nil, out, err
	}
	a.number(order)
	out.Pages, out.New = a.pages(), len(a.fresh)
	for _, p := range a.places {
		if p.pack == isZero {
			out.Zero++
		}
	}
	out.Known = out.Pages - out.Zero - out.New
	if len(a.fresh) > 0 {
		var err error
		if out.Pack, out.Bytes, err = a.write(ctx); err != nil {
			return nil, out, err
		}
	}
	return a.indexes(out.Pack), out, nil
}

func (a *adder) pages() int { return a.starts[len(a.starts)-1] }

// content is the number of the content that a page is of.
func (a *adder) content(page int) int { return sort.SearchInts(a.starts, page+1) - 1 }

// read reads pages, which are all of one content.
func (a *adder) read(b []byte, page int) error {
	n := a.content(page)
	_, err := a.parts[n].Pages.ReadAt(b, int64(page-a.starts[n])*PageSize)
	if err == io.EOF { // io.ReaderAt may say so at the end of what it has read whole
		err = nil
	}
	return err
}

// digest digests all pages.
func (a *adder) digest(ctx context.Context) error {
	a.sums, a.places = make([]sum, a.pages()), make([]place, a.pages())
	type unit struct{ first, n int }
	var units []unit
	for c := range a.parts {
		for first := a.starts[c]; first < a.starts[c+1]; first += FramePages {
			units = append(units, unit{first, min(FramePages, a.starts[c+1]-first)})
		}
	}
	return parallel(ctx, len(units), a.o.workers(), func() func(int) error {
		buf := make([]byte, frameSize)
		return func(i int) error {
			u := units[i]
			b := buf[:u.n*PageSize]
			if err := a.read(b, u.first); err != nil {
				return err
			}
			var sums [FramePages][blake3.Size]byte
			blake3.Pages(sums[:u.n], b)
			for p := range u.n {
				a.sums[u.first+p] = sum(sums[p][:])
				a.places[u.first+p].pack = unknown
				if empty(b[p*PageSize : (p+1)*PageSize]) {
					a.places[u.first+p].pack = isZero
				}
			}
			return nil
		}
	})
}

// empty: a page is zeros, as most of the pages whose first bytes are.
func empty(page []byte) bool {
	if binary.LittleEndian.Uint64(page) != 0 {
		return false
	}
	// Compares each byte with the one before, by the fast code for comparing.
	return page[0] == 0 && bytes.Equal(page[1:], page[:len(page)-1])
}

// order are the pages sorted by digest, of equal ones the first.
func (a *adder) order() []uint32 {
	order := make([]uint32, 0, a.pages())
	for p := range a.sums {
		if a.places[p].pack == unknown {
			order = append(order, uint32(p))
		}
	}
	slices.SortFunc(order, func(x, y uint32) int {
		return cmp.Or(bytes.Compare(a.sums[x][:], a.sums[y][:]), cmp.Compare(x, y))
	})
	return slices.CompactFunc(order, func(x, y uint32) bool { return a.sums[x] == a.sums[y] })
}

// number gives the pages that were not found their places in the new pack, and
// each page that is there twice the place of the other.
func (a *adder) number(order []uint32) {
	for _, p := range order {
		if a.places[p].pack == unknown {
			a.fresh = append(a.fresh, p)
		}
	}
	slices.Sort(a.fresh) // neighbours stay neighbours
	for n, p := range a.fresh {
		a.places[p] = place{isNew, uint32(n)}
	}
	for p := range a.places {
		if a.places[p].pack != unknown {
			continue
		}
		i := sort.Search(len(order), func(i int) bool { return bytes.Compare(a.sums[order[i]][:], a.sums[p][:]) >= 0 })
		a.places[p] = a.places[order[i]]
	}
}

// write writes the new pack.
func (a *adder) write(ctx context.Context) (ID, int64, error) {
	w := writer{
		dir: a.dir, workers: a.o.workers(), pages: len(a.fresh),
		sum: func(n int) sum { return a.sums[a.fresh[n]] },
		read: func(b []byte, first int) error {
			for len(b) > 0 {
				// As many as are neighbours, at once.
				n, p := 1, int(a.fresh[first])
				end := a.starts[a.content(p)+1]
				for n < len(b)/PageSize && p+n < end && int(a.fresh[first+n]) == p+n {
					n++
				}
				if err := a.read(b[:n*PageSize], p); err != nil {
					return err
				}
				b, first = b[n*PageSize:], first+n
			}
			return nil
		},
	}
	return w.write(ctx)
}

// indexes makes the index of each content.
func (a *adder) indexes(fresh ID) []*Index {
	var out []*Index
	for c := range a.parts {
		x, known := &Index{}, map[ID]int32{}
		for _, p := range a.places[a.starts[c]:a.starts[c+1]] {
			switch p.pack {
			case isZero:
				x.add(zeros, 0)
			case isNew:
				x.addFrom(known, fresh, p.page)
			default:
				x.addFrom(known, a.packs[p.pack], p.page)
			}
		}
		out = append(out, x)
	}
	return out
}
