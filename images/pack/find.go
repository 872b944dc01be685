package pack

import (
	"bytes"
	"cmp"
	"context"
	"os"
	"slices"
	"sort"
)

// find looks for pages in all packs; order are those pages sorted by digest. One
// pack after the other is read, the biggest first, so that an image needs few.
func (a *adder) find(ctx context.Context, order []uint32) error {
	ids, err := a.dir.List()
	if err != nil {
		return err
	}
	sizes := map[ID]int64{}
	for _, id := range ids {
		if info, err := os.Stat(a.dir.Path(id)); err == nil {
			sizes[id] = info.Size()
		}
	}
	slices.SortStableFunc(ids, func(x, y ID) int { return cmp.Compare(sizes[y], sizes[x]) })
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(order) == 0 {
			return nil
		}
		p, err := a.dir.open(id, true)
		if err != nil {
			continue // what it holds is packed once more
		}
		before := len(order)
		order = a.findIn(p, int32(len(a.packs)), order)
		p.Close()
		if len(order) < before {
			a.packs = append(a.packs, id)
		}
	}
	return nil
}

// findIn looks in one pack, and returns the pages that it does not have. Both
// sides are sorted: they are gone through together, where one side is far behind
// in leaps.
func (a *adder) findIn(p *file, pack int32, order []uint32) (missing []uint32) {
	missing = make([]uint32, 0, len(order))
	at := 0
	for i := 0; i < len(order); {
		mine := a.sums[order[i]]
		at = leap(at, p.pages, func(n int) bool {
			theirs := p.sum(p.sorted(n))
			return bytes.Compare(theirs[:], mine[:]) >= 0
		})
		if at == p.pages {
			return append(missing, order[i:]...)
		}
		theirs := p.sum(p.sorted(at))
		if theirs == mine {
			a.places[order[i]] = place{pack, uint32(p.sorted(at))}
			i++
			continue
		}
		next := leap(i, len(order), func(n int) bool { return bytes.Compare(a.sums[order[n]][:], theirs[:]) >= 0 })
		missing = append(missing, order[i:next]...)
		i = next
	}
	return missing
}

// leap is the first n of from..end for which reached is true, else end: in steps
// that become longer, and then between the last two.
func leap(from, end int, reached func(n int) bool) int {
	step := 1
	for from < end && !reached(min(from+step, end)-1) {
		from = min(from+step, end)
		step *= 2
	}
	stop := min(from+step, end)
	return from + sort.Search(stop-from, func(i int) bool { return reached(from + i) })
}
