package builtin

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// memory is pages with contents that no compression makes smaller and no two of
// which are alike, some of which are written anew all the time.
type memory struct {
	sync.Mutex
	bytes   []byte
	written []uint32 // how often each page was
}

// beat of the writer.
const beat = 10 * time.Millisecond

// newMemory holds size bytes and writes rate of them anew each second.
func newMemory(size, rate int) (*memory, error) {
	page := os.Getpagesize()
	m := &memory{written: make([]uint32, (size+page-1)/page)}
	if size == 0 {
		return m, nil
	}
	var err error
	if m.bytes, err = unix.Mmap(-1, 0, len(m.written)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	for i := range m.written {
		fill(m.page(i), seed(i, 0))
	}
	if rate > 0 {
		go m.dirty(rate / page)
	}
	return m, nil
}

func (m *memory) page(i int) []byte {
	page := os.Getpagesize()
	return m.bytes[i*page : (i+1)*page]
}

func seed(page int, written uint32) uint64 {
	return 88172645463325252 ^ uint64(page+1)<<24 ^ uint64(written)<<1
}

// fill is Marsaglia's xorshift64: the fastest that leaves no pattern.
func fill(b []byte, x uint64) {
	for i := 0; i+8 <= len(b); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.NativeEndian.PutUint64(b[i:], x)
	}
}

// dirty writes so many pages each second, one after the other. What could not be
// written in its time, because the tasks stood still, is not made up for.
func (m *memory) dirty(rate int) {
	ticks := time.NewTicker(beat)
	next, owed, last := 0, 0.0, time.Now()
	for range ticks.C {
		now := time.Now()
		owed += float64(rate) * min(now.Sub(last), 5*beat).Seconds()
		last = now
		m.Lock()
		for ; owed >= 1; owed-- {
			m.written[next]++
			fill(m.page(next), seed(next, m.written[next]))
			next = (next + 1) % len(m.written)
		}
		m.Unlock()
	}
}

func (m *memory) check() error {
	m.Lock()
	defer m.Unlock()
	for i, n := range m.written {
		x := seed(i, n)
		b := m.page(i)
		for at := 0; at+8 <= len(b); at += 8 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			if binary.NativeEndian.Uint64(b[at:]) != x {
				return fmt.Errorf("memory: page %d of %d, written %d times, is not what it was", i, len(m.written), n)
			}
		}
	}
	return nil
}
