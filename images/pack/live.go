package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/bits"
	"os"
	"slices"

	"crucible/images/blake3"
)

// Live are the pages that indexes refer to.
type Live struct{ packs map[ID]*pageSet }

// pageSet is a set of pages of one pack: a bit each.
type pageSet struct {
	words []uint64
	ranks []uint32 // pages of the set before each word: see rank
}

// Mark adds the pages of an index.
func (l *Live) Mark(x *Index) {
	if l.packs == nil {
		l.packs = map[ID]*pageSet{}
	}
	sets := make([]*pageSet, len(x.Packs))
	for n, id := range x.Packs {
		if sets[n] = l.packs[id]; sets[n] == nil {
			sets[n] = &pageSet{}
			l.packs[id] = sets[n]
		}
	}
	for i, r := range x.runs {
		if r.pack != zeros {
			sets[r.pack].add(int(r.first), int(x.end(i)-r.page))
		}
	}
}

func (s *pageSet) add(first, pages int) {
	if need := (first + pages + 63) / 64; need > len(s.words) {
		s.words = append(s.words, make([]uint64, need-len(s.words))...)
	}
	for p := first; p < first+pages; p++ {
		s.words[p/64] |= 1 << (p % 64)
	}
}

func (s *pageSet) has(page int) bool {
	return page/64 < len(s.words) && s.words[page/64]>>(page%64)&1 == 1
}

func (s *pageSet) count() (n int) {
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// rank is how many pages of the set are before one.
func (s *pageSet) rank(page int) uint32 {
	if s.ranks == nil {
		s.ranks = make([]uint32, len(s.words)+1)
		for i, w := range s.words {
			s.ranks[i+1] = s.ranks[i] + uint32(bits.OnesCount64(w))
		}
	}
	return s.ranks[page/64] + uint32(bits.OnesCount64(s.words[page/64]&(1<<(page%64)-1)))
}

// Has says whether anything refers to a pack.
func (l *Live) Has(id ID) bool { return l.packs[id] != nil }

// Fill is how many pages of a pack are live, of how many, and the pack's size.
func (l *Live) Fill(d Dir, id ID) (live, pages int, size int64, err error) {
	p, err := d.open(id, false)
	if err != nil {
		return 0, 0, 0, err
	}
	defer p.Close()
	if s := l.packs[id]; s != nil {
		live = s.count()
	}
	return live, p.pages, p.size, nil
}

// Moved says where pages have been copied to.
type Moved struct {
	// To is the new pack, of this size; without pages there is none.
	To    ID
	Pages int
	Bytes int64
	from  map[ID]movedPack
}

type movedPack struct {
	set  *pageSet
	base uint32 // where its first page is in the new pack
}

// Copy copies the live pages of some packs to a new one, and compares each with
// its digest.
func (d Dir) Copy(ctx context.Context, l *Live, from []ID, o Options) (*Moved, error) {
	m := &Moved{from: map[ID]movedPack{}}
	x, known := &Index{}, map[ID]int32{}
	var sums []sum
	for _, id := range from {
		p, err := d.open(id, true)
		if err != nil {
			return nil, err
		}
		set := l.packs[id]
		if set == nil {
			set = &pageSet{}
		}
		m.from[id] = movedPack{set, uint32(m.Pages)}
		for n := range p.pages {
			if set.has(n) {
				x.addFrom(known, id, uint32(n))
				sums = append(sums, p.sum(n))
				m.Pages++
			}
		}
		p.Close()
	}
	if m.Pages == 0 {
		return m, nil
	}
	r, err := d.Open(x)
	if err != nil {
		return nil, err
	}
	w := writer{dir: d, workers: o.workers(), pages: m.Pages, sum: func(n int) sum { return sums[n] }}
	w.read = func(b []byte, first int) error { return r.readChecked(b, first, sums) }
	m.To, m.Bytes, err = w.write(ctx)
	return m, errors.Join(err, r.Close())
}

// readChecked reads pages of a frame, and compares them with their digests.
func (r *Reader) readChecked(b []byte, first int, sums []sum) error {
	if _, err := r.ReadAt(b, int64(first)*PageSize); err != nil {
		return err
	}
	var have [FramePages][blake3.Size]byte
	n := len(b) / PageSize
	blake3.Pages(have[:n], b)
	for i := range n {
		if sum(have[i][:]) != sums[first+i] {
			one := r.x.runs[r.x.find(uint32(first+i))]
			return r.packs[one.pack].damaged("has changed: its page %d has another digest", int(one.first)+first+i-int(one.page))
		}
	}
	return nil
}

// Move returns the index with what was moved at its new place, or nil if nothing
// of it was.
func (x *Index) Move(m *Moved) *Index {
	if !slices.ContainsFunc(x.Packs, func(id ID) bool { _, is := m.from[id]; return is }) {
		return nil
	}
	out, known := &Index{}, map[ID]int32{}
	for i, r := range x.runs {
		for p := range x.end(i) - r.page {
			if r.pack == zeros {
				out.add(zeros, 0)
			} else if moved, is := m.from[x.Packs[r.pack]]; is {
				out.addFrom(known, m.To, moved.base+moved.set.rank(int(r.first+p)))
			} else {
				out.addFrom(known, x.Packs[r.pack], r.first+p)
			}
		}
	}
	return out
}

// Remove deletes a pack.
func (d Dir) Remove(id ID) error {
	if err := os.Remove(d.Path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pack: %w", err)
	}
	return nil
}

// Missing are the packs that indexes refer to and that are not there.
func (l *Live) Missing(d Dir) (ids []ID) {
	for _, id := range slices.SortedFunc(maps.Keys(l.packs), func(a, b ID) int { return slices.Compare(a[:], b[:]) }) {
		if _, err := os.Stat(d.Path(id)); errors.Is(err, fs.ErrNotExist) {
			ids = append(ids, id)
		}
	}
	return ids
}
