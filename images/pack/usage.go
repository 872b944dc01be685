package pack

import "math"

// Usage adds up what indexes take of the packs, for users and for groups of
// users. It needs 16 bytes for each page that is in the packs.
type Usage struct {
	packs  map[ID]*usedPack
	users  tally
	groups tally
}

// usedPack says of each page of a pack who refers to it.
type usedPack struct {
	*file
	users, groups marks
}

// marks say of each page of a pack who refers to it, by 1 + a number.
type marks struct {
	only []uint32 // the only one; 0 for none, several
	last []uint32 // the last one that was counted
}

const several = math.MaxUint32

// tally are sums of compressed bytes. Those of a page are its part of its frame.
type tally struct {
	unique, all []float64
}

// NewUsage reads the tables of all packs. The errors are about those that it
// could not read; the others count.
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
		marksOf := func() marks { return marks{make([]uint32, f.pages), make([]uint32, f.pages)} }
		u.packs[id] = &usedPack{f, marksOf(), marksOf()}
	}
	return u, errs
}

// Group begins a new group of users, User a new user in it.
func (u *Usage) Group() { u.groups.begin() }
func (u *Usage) User()  { u.users.begin() }

func (t *tally) begin() { t.unique, t.all = append(t.unique, 0), append(t.all, 0) }

// Count adds an index to what the last user has.
func (u *Usage) Count(x *Index) {
	x.Each(func(id ID, first, pages uint32) {
		p := u.packs[id]
		if p == nil {
			return
		}
		for n := int(first); n < int(first+pages) && n < p.pages; n++ {
			cost := p.cost(n)
			u.users.count(p.users, n, cost)
			u.groups.count(p.groups, n, cost)
		}
	})
}

func (t *tally) count(m marks, page int, cost float64) {
	me := uint32(len(t.all))
	if m.last[page] == me {
		return
	}
	m.last[page] = me
	t.all[me-1] += cost
	if m.only[page] == 0 {
		m.only[page] = me
	} else {
		m.only[page] = several
	}
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

// Sum ends the counting, and returns the shares of the users and of the groups.
func (u *Usage) Sum() (users, groups []Share, total Total) {
	var unused float64
	for _, p := range u.packs {
		total.Packs++
		total.Bytes += p.size
		for n := range p.pages {
			cost := p.cost(n)
			if p.users.only[n] == 0 {
				unused += cost
				continue
			}
			u.users.alone(p.users, n, cost)
			u.groups.alone(p.groups, n, cost)
		}
	}
	total.Unused = int64(unused)
	return u.users.shares(), u.groups.shares(), total
}

func (t *tally) alone(m marks, page int, cost float64) {
	if only := m.only[page]; only != several {
		t.unique[only-1] += cost
	}
}

func (t *tally) shares() (out []Share) {
	for i, all := range t.all {
		out = append(out, Share{int64(t.unique[i]), int64(all - t.unique[i])})
	}
	return out
}
