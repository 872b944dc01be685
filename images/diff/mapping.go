package diff

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"crucible/images/inspect/memory"
)

// span is a range of addresses.
type span struct{ from, to uint64 }

// pair is a mapping of the first image and the one of the second that is the
// same, or one of the two.
type pair struct {
	a, b *memory.Mapping
	// Where both are, at the same addresses, and where only one of them is. If
	// it has moved all is nil: they are of one size.
	both, onlyA, onlyB []span
	moved              bool
}

func (p *pair) start() uint64 {
	if p.b != nil {
		return p.b.Start
	}
	return p.a.Start
}

// what names it.
func (p *pair) what() string {
	m := p.b
	if m == nil {
		m = p.a
	}
	return strings.TrimSpace(fmt.Sprintf("%x-%x %s %s", m.Start, m.End, m.Permissions, m.What()))
}

// fields says how the two differ.
func (p *pair) fields() []Field {
	of := func(m *memory.Mapping) (r record) {
		r.set("addresses", fmt.Sprintf("%x-%x", m.Start, m.End))
		r.set("permissions", m.Permissions)
		r.set("flags", strings.Join(m.FlagNames(), " "))
		r.set("advice", strings.Join(m.AdviceNames(), " "))
		return r
	}
	return fields(of(p.a), of(p.b))
}

// alike: what is mapped is the same thing, and the same place of it.
func alike(a, b *memory.Mapping) bool {
	shared := func(m *memory.Mapping) bool { return strings.HasSuffix(m.Permissions, "s") }
	if a.Kind != b.Kind || a.What() != b.What() || shared(a) != shared(b) {
		return false
	}
	ofFile := a.Kind == memory.File || a.Kind == memory.SharedMemory
	return !ofFile || a.Offset-a.Start == b.Offset-b.Start
}

// pairs finds which mappings of two lists are the same one. First those that are
// alike at the same addresses: one can be several in the other image, which
// has other permissions for a part. Of the rest, as another start of a program
// has other addresses, those of the same part of the same thing, in their order.
func pairs(a, b []memory.Mapping) []*pair {
	a, b = merge(a), merge(b)
	found := pairer{byMappings: map[[2]*memory.Mapping]*pair{}, first: map[*memory.Mapping]*pair{}}
	alone := found.sweep(a, b)
	waiting := map[string][]*memory.Mapping{}
	key := func(m *memory.Mapping) string {
		return fmt.Sprint(m.What(), m.Kind, m.Permissions, m.Offset, "+", strconv.FormatUint(m.Size(), 10))
	}
	for _, s := range alone {
		if s.b != nil && found.first[s.b] == nil {
			waiting[key(s.b)] = append(waiting[key(s.b)], s.b)
			found.first[s.b] = &pair{b: s.b, onlyB: []span{{s.b.Start, s.b.End}}}
		}
	}
	for _, s := range alone {
		m := s.a
		if m == nil || found.first[m] != nil {
			continue
		}
		p := &pair{a: m, onlyA: []span{{m.Start, m.End}}}
		if list := waiting[key(m)]; len(list) > 0 {
			p = &pair{a: m, b: list[0], moved: true}
			found.first[list[0]], waiting[key(m)] = p, list[1:]
		}
		found.first[m] = p
		found.all = append(found.all, p)
	}
	for _, s := range alone {
		switch p := found.first[s.mapping()]; {
		case s.b != nil && p.a == nil:
			if !slices.Contains(found.all, p) {
				found.all = append(found.all, p)
			}
		case p.moved || p.b == nil: // it is in there whole
		case s.a != nil:
			p.onlyA = append(p.onlyA, s.span)
		default:
			p.onlyB = append(p.onlyB, s.span)
		}
	}
	slices.SortStableFunc(found.all, func(x, y *pair) int { return cmp.Compare(x.start(), y.start()) })
	return found.all
}

// merge makes one mapping of those next to each other that differ in nothing. The
// kernel does so when it makes a mapping, and not when its permissions change:
// after a restore there are fewer.
func merge(list []memory.Mapping) (merged []memory.Mapping) {
	for n := range list {
		m, last := list[n], len(merged)-1
		if last >= 0 {
			l := merged[last]
			ofFile := m.Kind == memory.File || m.Kind == memory.SharedMemory
			if l.End == m.Start && alike(&l, &m) && l.Permissions == m.Permissions && l.Flags == m.Flags && l.Advice == m.Advice && l.Shared == m.Shared &&
				(!ofFile || l.Offset+l.Size() == m.Offset) {
				merged[last].End = m.End
				continue
			}
		}
		merged = append(merged, m)
	}
	return merged
}

type pairer struct {
	all        []*pair
	byMappings map[[2]*memory.Mapping]*pair
	first      map[*memory.Mapping]*pair // that a mapping is in
}

// side is a range that a mapping of one image has, and none of the other that
// is alike.
type side struct {
	a, b *memory.Mapping
	span span
}

func (s side) mapping() *memory.Mapping {
	if s.a != nil {
		return s.a
	}
	return s.b
}

// sweep goes through both lists by address, and cuts where a mapping of either
// begins or ends.
func (f *pairer) sweep(a, b []memory.Mapping) (alone []side) {
	at := uint64(0)
	for i, j := 0, 0; i < len(a) || j < len(b); {
		next := ^uint64(0)
		// cover is the mapping that is at the address, if one is.
		cover := func(list []memory.Mapping, n int) *memory.Mapping {
			if n == len(list) {
				return nil
			}
			if list[n].Start > at {
				next = min(next, list[n].Start)
				return nil
			}
			next = min(next, list[n].End)
			return &list[n]
		}
		ma, mb := cover(a, i), cover(b, j)
		s := span{at, next}
		switch {
		case ma != nil && mb != nil && alike(ma, mb):
			f.add(ma, mb, s)
		default:
			if ma != nil {
				alone = append(alone, side{a: ma, span: s})
			}
			if mb != nil {
				alone = append(alone, side{b: mb, span: s})
			}
		}
		if at = next; ma != nil && ma.End == at {
			i++
		}
		if mb != nil && mb.End == at {
			j++
		}
	}
	return alone
}

func (f *pairer) add(a, b *memory.Mapping, s span) {
	p := f.byMappings[[2]*memory.Mapping{a, b}]
	if p == nil {
		p = &pair{a: a, b: b}
		f.byMappings[[2]*memory.Mapping{a, b}] = p
		f.all = append(f.all, p)
		for _, m := range []*memory.Mapping{a, b} {
			if f.first[m] == nil {
				f.first[m] = p
			}
		}
	}
	p.both = append(p.both, s)
}
