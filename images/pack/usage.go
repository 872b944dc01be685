package pack

import "math"

// Usage adds up what indexes take of the packs. It needs 8 bytes for each page
// that is in them.
type Usage struct {
	packs map[ID]*usedPack
	users []used
}

// usedPack says of each page of a pack who refers to it.
type usedPack struct {
	*file
	only []uint32 // 1 + the number of the one user, 0 for none, several
	last []uint32 // 1 + the number of the last user that was counted
}

const several = math.MaxUint32

// used are compressed bytes. Those of a page are its part of its frame.
type used struct{ unique, all float64 }

// NewUsage reads the tables of all packs. The error is about those that it could
// not read; the others count.
func (d Dir) NewUsage() (*Usage, []error) {
	u := &Usage{packs: map[ID]*usedPack{}}
	ids, err := d.List()
	if err != nil {
		return u, []error{err}
	}
	var errs []error
	for _, id := range ids {
		f, err := d.open(id, false)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.Close()
		u.packs[id] = &usedPack{f, make([]uint32, f.pages), make([]uint32, f.pages)}
	}
	return u, errs
}

// User begins to count for somebody, and returns a number for them.
func (u *Usage) User() int {
	u.users = append(u.users, used{})
	return len(u.users) - 1
}

// Count adds an index to those of the last user.
func (u *Usage) Count(x *Index) {
	user := &u.users[len(u.users)-1]
	me := uint32(len(u.users))
	x.Each(func(id ID, first, pages uint32) {
		p := u.packs[id]
		if p == nil {
			return
		}
		for n := first; n < first+pages && int(n) < p.pages; n++ {
			if p.last[n] == me {
				continue
			}
			p.last[n] = me
			user.all += p.cost(int(n))
			if p.only[n] == 0 {
				p.only[n] = me
			} else {
				p.only[n] = several
			}
		}
	})
}

// cost are the bytes that a page takes of its frame.
func (p *usedPack) cost(page int) float64 {
	n := page / FramePages
	return float64(p.frames[n].len) * PageSize / float64(p.rawLen(n))
}

// Share is what somebody takes of the packs, in compressed bytes.
type Share struct {
	Unique int64 // pages that nobody else refers to
	Shared int64 // the others
}

// Total is what the packs take.
type Total struct {
	Packs  int
	Bytes  int64 // of the files
	Unused int64 // of pages that nobody refers to
}

// Sum ends the counting, and returns the share of each user.
func (u *Usage) Sum() ([]Share, Total) {
	var total Total
	var unused float64
	for _, p := range u.packs {
		total.Packs++
		total.Bytes += p.size
		for n, only := range p.only {
			switch only {
			case several:
			case 0:
				unused += p.cost(n)
			default:
				u.users[only-1].unique += p.cost(n)
			}
		}
	}
	total.Unused = int64(unused)
	shares := make([]Share, len(u.users))
	for i, one := range u.users {
		shares[i] = Share{int64(one.unique), int64(one.all - one.unique)}
	}
	return shares, total
}
