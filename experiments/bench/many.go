package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"
)

// clones: one image, many containers. crucible makes them all by one command;
// the others need one command each, of which as many run at the same time as
// crucible's --parallel is by default.
func clones(ctx context.Context, r *rig, out *results, n rounds) error {
	original := map[string]box{}
	defer func() {
		for _, b := range original {
			_ = b.Remove()
		}
	}()
	all := []system{&crucible{r}, &runc{r}, &bare{r}}
	for _, s := range all {
		b, _, err := s.Start(ctx, r.name(), tiny())
		if err != nil {
			return err
		}
		original[s.Name()] = b
		if _, err := b.Checkpoint(ctx, false); err != nil {
			return err
		}
	}
	for _, count := range r.o.clones {
		times := n
		if count >= 50 {
			times = rounds{0, max(1, n.count/2)}
		}
		var arms []arm
		for _, s := range all {
			arms = append(arms, arm{s.Name(), func(ctx context.Context) ([]value, error) {
				took, err := cloneOnce(ctx, r, original[s.Name()], count)
				return []value{milliseconds(fmt.Sprintf("%d from one image", count), took)}, err
			}})
		}
		if err := out.interleave(ctx, "clones", times, arms); err != nil {
			return err
		}
	}
	return nil
}

func cloneOnce(ctx context.Context, r *rig, b box, count int) (took time.Duration, err error) {
	switch b := b.(type) {
	case *crucibleBox:
		took, err = b.clones(ctx, count)
		return took, errors.Join(err, b.sweep(b.name))
	case *runcBox:
		boxes := make([]box, count)
		for i := range boxes {
			if boxes[i], err = b.prepare(ctx, r.name(), tiny()); err != nil {
				return 0, err
			}
		}
		took, err = together(boxes, func(c box) error { return c.(*runcBox).clone(ctx, b) })
		return took, errors.Join(err, removeAll(boxes))
	case *bareBox:
		boxes := make([]box, count)
		for i := range boxes {
			c := &bareBox{bare: b.bare, dir: r.path("bare", r.name())}
			if err := afresh(c.dir); err != nil {
				return 0, err
			}
			boxes[i] = c
		}
		took, err = together(boxes, func(c box) (err error) {
			one := c.(*bareBox)
			one.pid, _, err = b.restoreFrom(ctx, b.image(), one.dir)
			return err
		})
		return took, errors.Join(err, removeAll(boxes))
	}
	return 0, errors.ErrUnsupported
}

// together does the same with all boxes, as many at a time as there are processors.
func together(boxes []box, do func(box) error) (time.Duration, error) {
	errs, slots := make([]error, len(boxes)), make(chan struct{}, runtime.NumCPU())
	var wait sync.WaitGroup
	begin := time.Now()
	for i, b := range boxes {
		slots <- struct{}{}
		wait.Go(func() {
			errs[i] = do(b)
			<-slots
		})
	}
	wait.Wait()
	return time.Since(begin), errors.Join(errs...)
}

func removeAll(boxes []box) error {
	_, err := together(boxes, box.Remove)
	return err
}

// idle: how fast many containers start, and what each needs in memory beside
// its program.
func idle(ctx context.Context, r *rig, out *results, n rounds) error {
	for _, count := range r.o.idle {
		var arms []arm
		for _, s := range []system{&crucible{r}, &runc{r}, &lxc{r}} {
			if count > 200 && s.Name() != nameCrucible {
				continue // minutes of nothing new
			}
			arms = append(arms, arm{s.Name(), func(ctx context.Context) ([]value, error) {
				return idleOnce(ctx, r, s, count)
			}})
		}
		if err := out.interleave(ctx, "idle", n, arms); err != nil {
			return err
		}
	}
	return nil
}

func idleOnce(ctx context.Context, r *rig, s system, count int) (values []value, err error) {
	var boxes []box
	defer func() { err = errors.Join(err, removeAll(boxes)) }()
	before, err := kernelMemory()
	if err != nil {
		return nil, err
	}
	var took time.Duration
	for range count {
		b, one, err := s.Start(ctx, r.name(), tiny())
		if err != nil {
			return nil, err
		}
		took += one
		boxes = append(boxes, b)
	}
	after, err := kernelMemory()
	if err != nil {
		return nil, err
	}
	each := func(what, unit string, x float64) value { return value{fmt.Sprintf("%d: %s", count, what), unit, x} }
	values = []value{
		each("starts, one after the other", "1/s", float64(count)/took.Seconds()),
		each("kernel memory of each", "KiB", float64(after-before)/float64(count)),
	}
	if s.Name() == nameRunc {
		return values, nil // leaves no process behind
	}
	monitors, err := monitorMemory(boxes)
	return append(values, each("monitor's own memory (PSS)", "KiB", monitors)), err
}

// kernelMemory is what the kernel uses for itself, in KiB. It includes what it
// needs for the program in the container.
func kernelMemory() (sum int64, err error) {
	err = parseFile("/proc/meminfo", func(f io.Reader) error {
		sizes, err := parseSizes(f)
		sum = sizes["Slab"] + sizes["KernelStack"] + sizes["PageTables"] + sizes["Percpu"]
		return err
	})
	return sum, err
}

// monitorMemory is the proportional set size of the processes that are the
// parents of the containers, on average, in KiB.
func monitorMemory(boxes []box) (float64, error) {
	var sum int64
	for _, b := range boxes {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.Pid()))
		if err != nil {
			return 0, err
		}
		parent, err := parentOf(string(stat))
		if err != nil {
			return 0, err
		}
		err = parseFile(fmt.Sprintf("/proc/%d/smaps_rollup", parent), func(f io.Reader) error {
			sizes, err := parseSizes(f)
			sum += sizes["Pss"]
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return float64(sum) / float64(len(boxes)), nil
}
