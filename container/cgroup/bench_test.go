package cgroup_test

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"crucible/container/cgroup"
	"crucible/container/testenv"
)

// BenchmarkGroup is what a container's group costs from its creation to its
// removal. "Cold" is the case that a person sees: nobody has moved a process
// between cgroups in the last second, see Add.
func BenchmarkGroup(b *testing.B) {
	testenv.Root(b)
	for _, cold := range []bool{false, true} {
		name := "warm"
		if cold {
			name = "cold"
		}
		b.Run(name, func(b *testing.B) {
			var detect, create, start, add, kill, remove time.Duration
			for b.Loop() {
				if cold {
					time.Sleep(time.Second)
				}
				at := time.Now()
				lap := func(sum *time.Duration) {
					now := time.Now()
					*sum += now.Sub(at)
					at = now
				}
				l, err := cgroup.Detect()
				if err != nil {
					b.Fatal(err)
				}
				lap(&detect)
				g, err := l.Create(testenv.Name(b), nil)
				if err != nil {
					b.Fatal(err)
				}
				lap(&create)
				cmd := exec.Command("sleep", "100")
				var clone time.Duration
				err = g.Start(func(group *os.File) (int, error) {
					began := time.Now()
					defer func() { clone = time.Since(began) }()
					if group != nil {
						cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
					}
					if err := cmd.Start(); err != nil {
						return 0, err
					}
					return cmd.Process.Pid, nil
				})
				if err != nil {
					b.Fatal(err)
				}
				lap(&start)
				start -= clone
				if err := g.Add(cmd.Process.Pid); err != nil { // again: what it would have cost
					b.Fatal(err)
				}
				lap(&add)
				if err := g.Kill(context.Background()); err != nil {
					b.Fatal(err)
				}
				_ = cmd.Wait()
				lap(&kill)
				if err := g.Remove(context.Background()); err != nil {
					b.Fatal(err)
				}
				lap(&remove)
			}
			for name, sum := range map[string]time.Duration{"detect": detect, "create": create, "start": start, "add": add, "kill": kill, "remove": remove} {
				b.ReportMetric(float64(sum.Microseconds())/float64(b.N), name+"-us/op")
			}
		})
	}
}

// BenchmarkAdd is cold: nobody has moved a process in the last second.
func BenchmarkAdd(b *testing.B) {
	testenv.Root(b)
	l, err := cgroup.Detect()
	if err != nil {
		b.Fatal(err)
	}
	g := create(b, l, nil)
	var add time.Duration
	for b.Loop() {
		time.Sleep(time.Second)
		cmd := exec.Command("sleep", "100")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		err := g.Add(cmd.Process.Pid)
		add += time.Since(began)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(add.Microseconds())/float64(b.N), "add-us/op")
}

// BenchmarkFreeze freezes and thaws a group with one process that waits, or
// computes.
func BenchmarkFreeze(b *testing.B) {
	testenv.Root(b)
	l, err := cgroup.Detect()
	if err != nil {
		b.Fatal(err)
	}
	layouts := map[string]cgroup.Layout{l.Mode(): l}
	for _, h := range l.Hierarchies {
		if h.Version == 2 {
			layouts["v2"] = cgroup.Layout{Hierarchies: []cgroup.Hierarchy{h}}
		}
	}
	for mode, l := range layouts {
		for _, jobName := range []string{"sleep", "spin"} {
			b.Run(mode+"/"+jobName, func(b *testing.B) {
				g := create(b, l, nil)
				start(b, g, jobName)
				var freeze, thaw time.Duration
				for b.Loop() {
					took, err := g.Freeze(context.Background(), 0)
					if err != nil {
						b.Fatal(err)
					}
					freeze += took
					began := time.Now()
					if err := g.Thaw(context.Background()); err != nil {
						b.Fatal(err)
					}
					thaw += time.Since(began)
				}
				b.ReportMetric(float64(freeze.Microseconds())/float64(b.N), "freeze-us/op")
				b.ReportMetric(float64(thaw.Microseconds())/float64(b.N), "thaw-us/op")
			})
		}
	}
}
