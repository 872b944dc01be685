package main

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// launch: a whole foreground run.
func launch(ctx context.Context, r *rig, out *results, n rounds) error {
	var arms []arm
	for _, s := range r.systems() {
		arms = append(arms, arm{s.Name(), func(ctx context.Context) ([]value, error) {
			took, err := s.Launch(ctx, "/bin/true")
			return []value{milliseconds("run", took)}, err
		}})
	}
	return out.interleave(ctx, "launch", n, arms)
}

// cycle: a whole checkpoint that stops, and a whole restore.
func cycle(ctx context.Context, r *rig, out *results, n rounds) error {
	for _, bridge := range []bool{false, true} {
		where := "no network"
		if bridge {
			where = "bridge"
		}
		var arms []arm
		for _, s := range r.systems() {
			arms = append(arms, arm{s.Name(), func(ctx context.Context) (values []value, err error) {
				p := tiny()
				p.bridge = bridge
				err = with(ctx, s, r.name(), p, func(b box) error {
					values, err = thereAndBack(ctx, b, where)
					return err
				})
				return values, err
			}})
		}
		if err := out.interleave(ctx, "cycle", n, arms); err != nil {
			return err
		}
	}
	return nil
}

// thereAndBack takes a container away and brings it back.
func thereAndBack(ctx context.Context, b box, what string) ([]value, error) {
	dump, err := b.Checkpoint(ctx, false)
	if err != nil {
		return nil, err
	}
	restore, err := b.Restore(ctx)
	return []value{milliseconds("checkpoint, "+what, dump), milliseconds("restore, "+what, restore)}, err
}

// frozen: what crucible says about sleep, and what a program sees that looks
// at the clock. The latter has the threads of a Go program, and each costs.
func frozen(ctx context.Context, r *rig, out *results, n rounds) error {
	var arms []arm
	for _, s := range r.systems() {
		arms = append(arms, arm{s.Name(), func(ctx context.Context) ([]value, error) {
			return frozenOnce(ctx, r, s)
		}})
	}
	return out.interleave(ctx, "frozen", n, arms)
}

func frozenOnce(ctx context.Context, r *rig, s system) (values []value, err error) {
	if s.Name() == nameCrucible {
		err := with(ctx, s, r.name(), tiny(), func(b box) error {
			_, err := b.Checkpoint(ctx, true)
			values = append(values, milliseconds("sleep, by crucible's own clock", b.(*crucibleBox).frozen))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	name := r.name()
	socket := r.socket(name)
	err = with(ctx, s, name, r.workload(name, "beat"), func(b box) error {
		if err := answers(ctx, b, socket); err != nil {
			return err
		}
		from := monotonic()
		if _, err := b.Checkpoint(ctx, true); err != nil {
			return err
		}
		until := monotonic()
		said, err := ask(b.Pid(), socket, "gaps")
		if err != nil {
			return err
		}
		var pauses []pause
		if err := decode([]byte(said), &pauses); err != nil {
			return err
		}
		values = append(values, milliseconds("a Go program, by its own clock", longestPause(pauses, from, until)))
		return nil
	})
	return values, err
}

// memory: crucible against CRIU alone, where nearly all time goes into pages.
func memory(ctx context.Context, r *rig, out *results, n rounds) error {
	if err := warm(r.o.sizes); err != nil {
		return err
	}
	for _, mib := range r.o.sizes {
		var arms []arm
		for _, s := range []system{&crucible{r}, &bare{r}} {
			arms = append(arms, arm{s.Name(), func(ctx context.Context) (values []value, err error) {
				name := r.name()
				err = with(ctx, s, name, r.workload(name, "hold", fmt.Sprint(mib)), func(b box) error {
					if err := answers(ctx, b, r.socket(name)); err != nil {
						return err
					}
					if values, err = thereAndBack(ctx, b, fmt.Sprintf("%d MiB", mib)); err != nil {
						return err
					}
					_, err = ask(b.Pid(), r.socket(name), "touch")
					return err
				})
				return values, err
			}})
		}
		if err := out.interleave(ctx, "memory", n, arms); err != nil {
			return err
		}
	}
	return nil
}

// nameLazy is crucible, loading memory after the start.
const nameLazy = "crucible --lazy"

// lazy: the whole restore command and one question to the program, which reads
// 16 of its pages for the answer.
func lazy(ctx context.Context, r *rig, out *results, n rounds) error {
	mib := r.o.sizes[len(r.o.sizes)-1]
	s, name := &crucible{r}, r.name()
	return with(ctx, s, name, r.workload(name, "hold", fmt.Sprint(mib)), func(b box) error {
		if err := answers(ctx, b, r.socket(name)); err != nil {
			return err
		}
		if _, err := b.Checkpoint(ctx, false); err != nil {
			return err
		}
		c := b.(*crucibleBox)
		arms := []arm{{nameCrucible, nil}, {nameLazy, nil}}
		for i, flags := range [][]string{nil, {"--lazy"}} {
			arms[i].once = func(ctx context.Context) ([]value, error) {
				took, err := c.firstAnswer(ctx, r.socket(name), flags...)
				if err != nil {
					return nil, err
				}
				// Only the container goes: its image is for the next round.
				_, _, err = s.command(context.Background(), "delete", "-f", name)
				c.pid = 0
				return []value{milliseconds(fmt.Sprintf("%d MiB, first answer", mib), took)}, err
			}
		}
		return out.interleave(ctx, "lazy", n, arms)
	})
}

// warm touches as much memory as will be used. On a virtual machine the first
// touch of a page may fetch it from the host below, which costs more than all
// that is measured here.
func warm(sizes []int) error {
	// The program, the page cache of its image, and the restored program.
	most := 3 * slices.Max(sizes) << 20
	memory, err := unix.Mmap(-1, 0, most, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", most, err)
	}
	for i := 0; i < most; i += 4096 {
		memory[i] = 1
	}
	return unix.Munmap(memory)
}
