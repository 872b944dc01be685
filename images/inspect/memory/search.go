package memory

import (
	"context"
	"fmt"
	"runtime"
	"sync"
)

// Match is where a pattern matches.
type Match struct {
	Addr uint64
	Len  int
}

// block is what a processor searches at a time: it stays in its cache.
const block = 512 << 10

// stretch is memory without a hole.
type stretch struct{ from, to uint64 }

// stretches are those between two addresses.
func (s *Space) stretches(from, to uint64) (all []stretch) {
	for _, r := range s.Between(from, to) {
		begin, end := max(from, r.Addr), min(to, r.end(s.memory.pageSize))
		switch {
		case r.Remote:
		case len(all) > 0 && all[len(all)-1].to == begin:
			all[len(all)-1].to = end
		default:
			all = append(all, stretch{begin, end})
		}
	}
	return all
}

// search is a call of Search.
type search struct {
	space   *Space
	pattern *Pattern
	workers sync.WaitGroup
	buffers chan []byte
	results chan chan result
}

// result is what is in a block.
type result struct {
	stretch stretch
	from    uint64
	matches []Match
	err     error
}

// Search calls found for each match between two addresses, by address. A match
// does not overlap the one before, and does not reach over a page that was not
// dumped. All processors search; found is called by the caller's goroutine, and
// an error of it ends the search.
func (s *Space) Search(ctx context.Context, p *Pattern, from, to uint64, found func(Match) error) error {
	n := runtime.GOMAXPROCS(0)
	// The results come in the order of the blocks; few are under way.
	r := &search{space: s, pattern: p, buffers: make(chan []byte, n+1), results: make(chan chan result, 2*n)}
	for range cap(r.buffers) {
		r.buffers <- nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer r.workers.Wait()
	defer cancel()
	r.workers.Add(1)
	go r.start(ctx, s.stretches(from, to))
	if err := r.collect(ctx, found); err != nil {
		return err
	}
	return ctx.Err()
}

// start searches all blocks, each in a goroutine that waits for a buffer.
func (s *search) start(ctx context.Context, all []stretch) {
	defer s.workers.Done()
	defer close(s.results)
	for _, st := range all {
		for at := st.from; at < st.to; at += block {
			answer := make(chan result, 1)
			select {
			case s.results <- answer:
			case <-ctx.Done():
				return
			}
			s.workers.Add(1)
			go func() {
				defer s.workers.Done()
				answer <- s.block(ctx, st, at, at)
			}()
		}
	}
}

func (s *search) collect(ctx context.Context, found func(Match) error) error {
	end := uint64(0)
	for answer := range s.results {
		r := <-answer
		if r.err == nil && len(r.matches) > 0 && r.matches[0].Addr < end {
			// The match before reaches into this block.
			r = s.block(ctx, r.stretch, r.from, end)
		}
		if r.err != nil {
			return r.err
		}
		for _, m := range r.matches {
			if err := found(m); err != nil {
				return err
			}
			end = m.Addr + uint64(m.Len)
		}
	}
	return nil
}

// block finds the matches that begin in a block, at first or behind it.
func (s *search) block(ctx context.Context, st stretch, from, first uint64) result {
	r := result{stretch: st, from: from}
	buf := <-s.buffers
	defer func() { s.buffers <- buf }()
	if r.err = ctx.Err(); r.err != nil {
		return r
	}
	if buf == nil {
		buf = make([]byte, 1+block+s.pattern.behind())
	}
	start := max(st.from, from-min(from, 1)) // see findExpr
	end := min(st.to, from+block)
	b := buf[:min(st.to, end+uint64(s.pattern.behind()))-start]
	if _, err := s.space.ReadAt(b, int64(start)); err != nil {
		r.err = fmt.Errorf("search memory: %w", err)
		return r
	}
	s.pattern.find(b, int(first-start), int(end-start), func(i, j int) {
		r.matches = append(r.matches, Match{start + uint64(i), j - i})
	})
	return r
}

// Near is what was dumped between two addresses next to a match: without a hole,
// it reaches from the end that is given up to the other or a hole.
func (s *Space) Near(from, to uint64, before bool) []byte {
	all := s.stretches(from, to)
	if len(all) == 0 {
		return nil
	}
	st := all[0]
	if before {
		st = all[len(all)-1]
	}
	if before && st.to != to || !before && st.from != from {
		return nil
	}
	b := make([]byte, st.to-st.from)
	if _, err := s.ReadAt(b, int64(st.from)); err != nil {
		return nil
	}
	return b
}
