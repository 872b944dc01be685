package workload

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"crucible/checkpoint"
	"crucible/checkpoint/preflight"
	"crucible/container"
	"crucible/restore"
)

// wayCases ask about the ways to checkpoint and to restore, rather than about
// what is in the container.
func wayCases() []Case {
	return []Case{
		{Name: "leave-running", Question: "Does a container that is left running go on, and does its image restore all the same?", program: state, plot: leaveRunning},
		{Name: "twice", Question: "Does a restored container survive a second checkpoint and restore?", program: state, plot: twice},
		{Name: "clones", Question: "Do three containers come from one image, each whole?", program: state, plot: clones},
		{Name: "lazy-pages", Question: "Does a container that runs before its memory is loaded get all of it?",
			Needs: []string{"memory/userfaultfd", "criu/uffd-noncoop"}, program: lazyMemory, plot: lazily},
		{Name: "incremental", Question: "Does an image that holds only the memory changed since the one before come back whole?",
			Needs: []string{"memory/soft-dirty", "criu/mem_dirty_track"}, program: changingMemory, plot: incremental},
	}
}

// state is some of everything: memory, a file, a child and a pipe to it.
func state() (func() error, error) {
	memory, err := anonymousMemory()
	if err != nil {
		return nil, err
	}
	file, err := deletedFile()
	if err != nil {
		return nil, err
	}
	child, err := sharedMemory()
	return func() error { return first(memory(), file(), child()) }, err
}

func leaveRunning(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{LeaveRunning: true}); err != nil {
		return err
	}
	if err := s.goOn(ctx); err != nil {
		return fmt.Errorf("the original: %w", err)
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	return s.goOn(ctx)
}

func twice(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	return once(ctx, s)
}

func clones(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	var all []*container.Container // alive at the same time
	for n := range 3 {
		if err := s.restore(ctx, restore.Options{Name: fmt.Sprintf("%s-%d", s.name, n+1)}); err != nil {
			return fmt.Errorf("clone %d: %w", n+1, err)
		}
		all = append(all, s.box)
	}
	for n, box := range all {
		s.box = box
		if err := s.goOn(ctx); err != nil {
			return fmt.Errorf("clone %d: %w", n+1, err)
		}
	}
	return nil
}

func lazyMemory() (func() error, error) {
	const size = 4 << 20
	m, err := anonymous(size, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	want := pattern(size, 1)
	copy(m, want)
	return func() error { return same("memory", []byte(m), want) }, nil
}

func lazily(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{Lazy: true}); err != nil {
		return err
	}
	return s.goOn(ctx)
}

// refusedPlot wants that the engine itself says no, before anything stands still.
func refusedPlot(ctx context.Context, s *stage) error {
	err := s.checkpoint(ctx, checkpoint.Options{})
	var refused *preflight.Error
	switch {
	case err == nil:
		return errors.New("the checkpoint worked: there is nothing to refuse any more")
	case !errors.As(err, &refused):
		return fmt.Errorf("it is not refused but fails: %w", err)
	}
	return s.goOn(ctx)
}
