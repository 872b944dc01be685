package diff

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"crucible/images/inspect/memory"
)

// memory compares the mappings of each process, and what is in them.
func (c *comparison) memory(ctx context.Context) error {
	a, err := memory.Open(c.a)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := memory.Open(c.b)
	if err != nil {
		return err
	}
	defer b.Close()
	if a.PageSize() != b.PageSize() {
		c.add(Difference{Section: Memory, Change: Changed, What: "pages", Fields: []Field{
			{"size", strconv.FormatUint(a.PageSize(), 10), strconv.FormatUint(b.PageSize(), 10)}}})
		return nil
	}
	c.diff.PageSize = b.PageSize()
	m := &memoryComparison{comparison: c, a: a, b: b, seen: map[window]bool{}, mappedA: map[uint64]bool{}, mappedB: map[uint64]bool{}}
	pids := append(a.Pids(), b.Pids()...)
	slices.Sort(pids)
	for _, pid := range slices.Compact(pids) {
		if err := m.process(ctx, pid); err != nil {
			return err
		}
	}
	return m.hidden(ctx)
}

type memoryComparison struct {
	*comparison
	a, b *memory.Memory
	// Shared memory that has been compared, and that some process maps.
	seen             map[window]bool
	mappedA, mappedB map[uint64]bool
}

// window is shared memory that was compared with other.
type window struct{ a, b, fromA, fromB, length uint64 }

// spaceOf is a process in one of the images, or nil.
func spaceOf(m *memory.Memory, pid int) (*memory.AddressSpace, error) {
	if !slices.Contains(m.Pids(), pid) {
		return nil, nil
	}
	return m.AddressSpace(pid)
}

func (m *memoryComparison) process(ctx context.Context, pid int) error {
	a, err := spaceOf(m.a, pid)
	if err != nil {
		return err
	}
	b, err := spaceOf(m.b, pid)
	if err != nil {
		return err
	}
	switch {
	case a == nil || b == nil:
		return m.alone(ctx, pid, a, b)
	case a.Mappings == nil || b.Mappings == nil:
		return m.whole(ctx, pid)
	}
	for _, p := range pairs(a.Mappings, b.Mappings) {
		d := Difference{Section: Memory, Process: pid, Change: Changed, What: p.what(), Pages: &Pages{}}
		switch {
		case p.a == nil:
			d.Change = Added
		case p.b == nil:
			d.Change = Removed
		default:
			d.Fields = p.fields()
		}
		if err := m.pages(ctx, pid, p, &d); err != nil {
			return err
		}
		if d.Change != Changed || d.Fields != nil || d.Pages.differ() {
			m.add(d)
		}
	}
	return nil
}

// alone is for a process that only one image has: that is one difference.
func (m *memoryComparison) alone(ctx context.Context, pid int, a, b *memory.AddressSpace) error {
	d := Difference{Section: Memory, Process: pid, Change: Removed, Pages: &Pages{}}
	if a == nil {
		a, d.Change = &memory.AddressSpace{}, Added
	}
	if b == nil {
		b = &memory.AddressSpace{}
	}
	d.What = fmt.Sprintf("all %d mappings", len(a.Mappings)+len(b.Mappings))
	for _, p := range pairs(a.Mappings, b.Mappings) {
		if err := m.pages(ctx, pid, p, &d); err != nil {
			return err
		}
	}
	d.Ranges = nil
	m.add(d)
	return nil
}

// pages compares what is in a pair of mappings.
func (m *memoryComparison) pages(ctx context.Context, pid int, p *pair, d *Difference) error {
	for side, mapping := range []*memory.Mapping{p.a, p.b} {
		if mapping != nil && mapping.Kind == memory.SharedMemory {
			[]map[uint64]bool{m.mappedA, m.mappedB}[side][mapping.Shared] = true
		}
	}
	if m.options.NoMemory {
		return nil
	}
	if p.moved {
		return m.compare(ctx, pid, p.a, p.b, span{p.a.Start, p.a.End}, span{p.b.Start, p.b.End}, d)
	}
	for _, s := range p.both {
		if err := m.compare(ctx, pid, p.a, p.b, s, s, d); err != nil {
			return err
		}
	}
	for _, s := range p.onlyA {
		if err := m.compare(ctx, pid, p.a, nil, s, span{}, d); err != nil {
			return err
		}
	}
	for _, s := range p.onlyB {
		if err := m.compare(ctx, pid, nil, p.b, span{}, s, d); err != nil {
			return err
		}
	}
	return nil
}

// compare compares a part of a mapping with one of another, or of one with
// nothing, and adds what differs to a difference.
func (m *memoryComparison) compare(ctx context.Context, pid int, a, b *memory.Mapping, inA, inB span, d *Difference) (err error) {
	w, key, start := memory.Window{}, window{}, inA.from
	shared := false
	if a != nil {
		if w.A, w.FromA, err = m.a.Content(pid, *a); err != nil {
			return err
		}
		w.FromA += inA.from - a.Start
		w.Length, w.Zero, shared, key.a = inA.to-inA.from, a.Zero(), a.Kind == memory.SharedMemory, a.Shared
	}
	if b != nil {
		if w.B, w.FromB, err = m.b.Content(pid, *b); err != nil {
			return err
		}
		w.FromB += inB.from - b.Start
		w.Length, w.Zero, shared, key.b, start = inB.to-inB.from, b.Zero(), b.Kind == memory.SharedMemory, b.Shared, inB.from
	}
	// What one of them does not map has no pages there.
	switch {
	case a == nil:
		w.FromA = w.FromB
		w.A, err = m.a.Shared(nothing)
	case b == nil:
		w.FromB = w.FromA
		w.B, err = m.b.Shared(nothing)
	}
	if err != nil {
		return err
	}
	key.fromA, key.fromB, key.length = w.FromA, w.FromB, w.Length
	if shared && m.seen[key] {
		return nil
	}
	if shared {
		m.seen[key] = true
	}
	return m.window(ctx, w, start, d)
}

// window compares and adds up; start is the address that it has for the process.
func (m *memoryComparison) window(ctx context.Context, w memory.Window, start uint64, d *Difference) error {
	got, err := w.Compare(ctx)
	if err != nil {
		return err
	}
	pages := Pages{Same: got.Same}
	for _, x := range got.Differences {
		r := Range{Start: "0x" + strconv.FormatUint(x.Addr-w.FromB+start, 16), Pages: x.Pages}
		switch x.Change {
		case memory.Changed:
			pages.Changed, r.Change = pages.Changed+x.Pages, Changed
		case memory.Added:
			pages.Added, r.Change = pages.Added+x.Pages, Added
		case memory.Removed:
			pages.Removed, r.Change = pages.Removed+x.Pages, Removed
		}
		if m.options.Ranges {
			d.Ranges = append(d.Ranges, r)
		}
	}
	m.diff.Pages.add(pages)
	d.Pages.add(pages)
	return nil
}

// everything is more than any space has.
const everything = 1 << 57

// whole compares processes of which an image does not say what is mapped.
func (m *memoryComparison) whole(ctx context.Context, pid int) error {
	a, err := m.a.Process(pid)
	if err != nil {
		return err
	}
	b, err := m.b.Process(pid)
	if err != nil {
		return err
	}
	return m.spaces(ctx, pid, "memory", a, b)
}

func (m *memoryComparison) spaces(ctx context.Context, pid int, what string, a, b *memory.Space) error {
	if m.options.NoMemory {
		return nil
	}
	d := Difference{Section: Memory, Process: pid, Change: Changed, What: what, Pages: &Pages{}}
	if err := m.window(ctx, memory.Window{A: a, B: b, Length: everything, Zero: pid == 0}, 0, &d); err != nil {
		return err
	}
	if d.Pages.differ() {
		m.add(d)
	}
	return nil
}

// hidden compares the shared memory that no process maps, such as a memfd that
// is only open. An id lives as long as the memory: a restore makes other ones, in
// the same order.
func (m *memoryComparison) hidden(ctx context.Context) error {
	a := slices.DeleteFunc(m.a.SharedIDs(), func(id uint64) bool { return m.mappedA[id] })
	b := slices.DeleteFunc(m.b.SharedIDs(), func(id uint64) bool { return m.mappedB[id] })
	var both [][2]uint64
	for _, id := range a {
		if slices.Contains(b, id) {
			both = append(both, [2]uint64{id, id})
		}
	}
	onlyA := slices.DeleteFunc(slices.Clone(a), func(id uint64) bool { return slices.Contains(b, id) })
	onlyB := slices.DeleteFunc(b, func(id uint64) bool { return slices.Contains(a, id) })
	for n := range max(len(onlyA), len(onlyB)) {
		both = append(both, [2]uint64{at(onlyA, n), at(onlyB, n)})
	}
	for _, ids := range both {
		// What is not there has no pages.
		sa, err := m.a.Shared(ids[0])
		if err != nil {
			return err
		}
		sb, err := m.b.Shared(ids[1])
		if err != nil {
			return err
		}
		if err := m.spaces(ctx, 0, fmt.Sprintf("shared memory %d", min(ids[0], ids[1])), sa, sb); err != nil {
			return err
		}
	}
	return nil
}

// nothing is an id that no shared memory has.
const nothing = ^uint64(0)

// at is an element, or an id that nothing has.
func at(ids []uint64, n int) uint64 {
	if n < len(ids) {
		return ids[n]
	}
	return nothing
}
