package main

import (
	"context"
	"fmt"
	"time"
)

// looking: how long it takes to search all memory of an image for a text that is
// not there, to compare two images of one program, page by page, and to compare
// one with its digests. Nobody else
// does either; what can be measured besides is how fast the disk's cache is read.
func looking(ctx context.Context, r *rig, out *results, n rounds) error {
	mib := r.o.sizes[len(r.o.sizes)-1]
	s, name := &crucible{r}, r.name()
	return with(ctx, s, name, r.workload(name, "hold", fmt.Sprint(mib)), func(b box) error {
		if err := answers(ctx, b, r.socket(name)); err != nil {
			return err
		}
		first, second := name+"@1", name+"@2"
		for range 2 {
			if _, _, err := s.command(ctx, "checkpoint", "-R", name); err != nil {
				return err
			}
		}
		err := out.interleave(ctx, "look", n, []arm{{nameCrucible, func(ctx context.Context) ([]value, error) {
			searched, err := s.asks(ctx, "image", "memory", "--grep", "no such text in there", second)
			if err != nil {
				return nil, err
			}
			compared, err := s.asks(ctx, "image", "diff", first, second)
			if err != nil {
				return nil, err
			}
			verified, err := s.alone(ctx, "image", "verify", second)
			return []value{milliseconds(fmt.Sprintf("search %d MiB", mib), searched),
				milliseconds(fmt.Sprintf("compare %d MiB", mib), compared),
				milliseconds(fmt.Sprintf("verify %d MiB on one processor", mib), verified)}, err
		}}})
		if _, _, rm := s.command(ctx, "image", "rm", first, second); err == nil {
			err = rm
		}
		return err
	})
}

// alone runs a command on one processor.
func (s *crucible) alone(ctx context.Context, args ...string) (time.Duration, error) {
	_, took, err := s.run(ctx, command{
		argv: append([]string{"taskset", "-c", "0", s.o.crucible}, args...),
		env:  []string{"CRUCIBLE_ROOT=" + s.path("crucible"), "CRUCIBLE_CRIU=" + s.o.criu},
	})
	return took, err
}

// asks runs a command whose exit status is an answer: 0 or 1.
func (s *crucible) asks(ctx context.Context, args ...string) (time.Duration, error) {
	_, took, err := s.run(ctx, command{
		argv: append([]string{"sh", "-c", `"$@"; [ $? -le 1 ]`, "sh", s.o.crucible}, args...),
		env:  []string{"CRUCIBLE_ROOT=" + s.path("crucible"), "CRUCIBLE_CRIU=" + s.o.criu},
	})
	return took, err
}
