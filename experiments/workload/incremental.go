package workload

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"crucible/checkpoint"
	"crucible/images"
	"crucible/restore"
)

// incremental writes two images, the second of which holds only what has
// changed, and restores from both together.
func incremental(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{LeaveRunning: true}); err != nil {
		return err
	}
	whole, err := pageBytes(s.image)
	if err != nil {
		return err
	}
	if err := s.checkpoint(ctx, checkpoint.Options{Parent: s.image.Ref()}); err != nil {
		return fmt.Errorf("the second: %w", err)
	}
	rest, err := pageBytes(s.image)
	if err != nil {
		return err
	}
	if rest > whole/2 {
		return fmt.Errorf("the second image has %d KiB of pages, the first %d: what has not changed is in it", rest>>10, whole>>10)
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	return s.goOn(ctx)
}

// pageBytes is the size of all the memory in an image.
func pageBytes(i *images.Image) (int64, error) {
	entries, err := os.ReadDir(i.CRIUDir())
	if err != nil {
		return 0, err
	}
	var total int64
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "pages-") {
			continue
		}
		info, err := os.Stat(filepath.Join(i.CRIUDir(), e.Name()))
		if err != nil {
			return 0, err
		}
		total += info.Size()
	}
	return total, nil
}

// changingMemory has much memory that stays and a little that changes all the
// time: numbers are written to the pages in turn, each greater by one. A page
// that came back from the wrong image has a number that is out of turn.
func changingMemory() (func() error, error) {
	const size, turn = 8 << 20, 8
	stays, err := lazyMemory()
	if err != nil {
		return nil, err
	}
	much, err := anonymous(size, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	want := pattern(size, 2)
	copy(much, want)
	little, err := anonymous(turn*page, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	written := uint64(0)
	write := func() {
		mu.Lock()
		defer mu.Unlock()
		written++
		binary.NativeEndian.PutUint64(little[written%turn*page:], written)
	}
	for range turn {
		write()
	}
	tick := time.NewTicker(10 * time.Millisecond)
	go func() {
		for range tick.C {
			write()
		}
	}()
	return func() error {
		mu.Lock()
		defer mu.Unlock()
		for n := written; n > written-turn; n-- {
			if got := binary.NativeEndian.Uint64(little[n%turn*page:]); got != n {
				return fmt.Errorf("page %d has the number %d, want %d", n%turn, got, n)
			}
		}
		return first(stays(), same("memory", much, want))
	}, nil
}
