package memory

import (
	"errors"
	"sort"

	"crucible/images"
)

// AddressSpace is what a process sees: its mappings, and what they hold.
type AddressSpace struct {
	Pid int
	// Mappings by address. An image of a pre-dump does not tell them: nil.
	Mappings []Mapping

	memory *Memory
}

// AddressSpace is that of a process.
func (m *Memory) AddressSpace(pid int) (*AddressSpace, error) {
	if _, err := m.Process(pid); err != nil {
		return nil, err
	}
	mappings, err := m.Mappings(pid)
	if err != nil && !errors.Is(err, images.PreDump) {
		return nil, err
	}
	return &AddressSpace{pid, mappings, m}, nil
}

// Mapping is the one that an address is in, or nil.
func (a *AddressSpace) Mapping(addr uint64) *Mapping {
	n := sort.Search(len(a.Mappings), func(n int) bool { return a.Mappings[n].End > addr })
	if n == len(a.Mappings) || a.Mappings[n].Start > addr {
		return nil
	}
	return &a.Mappings[n]
}

// State says what an image knows of some memory.
type State string

const (
	Dumped   State = "dumped"
	Zeros    State = "zeros"    // not dumped, for it holds zeros
	InFile   State = "in file"  // not dumped, for the file that is mapped has it, or the kernel makes it
	Remote   State = "remote"   // it stayed with the process
	Unmapped State = "unmapped" // the process has none there
)

// Part is some memory of a process of which one thing is true.
type Part struct {
	Addr, Size uint64
	State      State
	// Mapping is nil where nothing is mapped, or no mappings are known.
	Mapping *Mapping

	space *Space
	at    uint64
}

// Part is the part of it between two offsets.
func (p Part) part(from, to uint64) Part {
	p.Addr, p.at, p.Size = p.Addr+from, p.at+from, to-from
	return p
}

// ReadAt reads from an offset in it on. What is not known is *Absent.
func (p Part) ReadAt(b []byte, offset int64) (int, error) {
	if p.State == Zeros {
		clear(b)
		return len(b), nil
	}
	if p.State != Dumped {
		return 0, &Absent{Addr: p.Addr + uint64(offset), Remote: p.State == Remote}
	}
	return p.space.ReadAt(b, int64(p.at)+offset)
}

// Parts are all that is between two addresses, without a gap.
func (a *AddressSpace) Parts(from, to uint64) (parts []Part, err error) {
	at := from
	for n := range a.mappingsIn(from, to) {
		p := &a.Mappings[n]
		if at < p.Start {
			parts = append(parts, Part{Addr: at, Size: p.Start - at, State: Unmapped})
		}
		at = max(at, p.Start)
		end := min(to, p.End)
		space, start, err := a.memory.Content(a.Pid, *p)
		if err != nil {
			return nil, err
		}
		hole := InFile
		if p.Zero() {
			hole = Zeros
		}
		whole := Part{Addr: at, Size: end - at, State: hole, Mapping: p, space: space, at: start + at - p.Start}
		parts = append(parts, whole.split()...)
		at = end
	}
	if at < to {
		rest := Part{Addr: at, Size: to - at, State: Unmapped}
		if a.Mappings == nil {
			if rest.space, err = a.memory.Process(a.Pid); err != nil {
				return nil, err
			}
			rest.at = at
			return rest.split(), nil
		}
		parts = append(parts, rest)
	}
	return parts, nil
}

// mappingsIn are the indices of the mappings between two addresses.
func (a *AddressSpace) mappingsIn(from, to uint64) func(func(int) bool) {
	return func(yield func(int) bool) {
		n := sort.Search(len(a.Mappings), func(n int) bool { return a.Mappings[n].End > from })
		for ; n < len(a.Mappings) && a.Mappings[n].Start < to; n++ {
			if !yield(n) {
				return
			}
		}
	}
}

// split cuts a part where pages were dumped; the rest keeps its state.
func (p Part) split() (parts []Part) {
	size, done := p.space.memory.pageSize, uint64(0)
	for _, r := range p.space.Between(p.at, p.at+p.Size) {
		state := Dumped
		if r.Remote {
			state = Remote
		}
		begin, end := max(r.Addr, p.at)-p.at, min(r.end(size)-p.at, p.Size)
		if done < begin {
			parts = append(parts, p.part(done, begin))
		}
		if last := len(parts) - 1; last >= 0 && parts[last].State == state && done == begin {
			parts[last].Size += end - begin
		} else {
			next := p.part(begin, end)
			next.State = state
			parts = append(parts, next)
		}
		done = end
	}
	if done < p.Size {
		parts = append(parts, p.part(done, p.Size))
	}
	return parts
}
