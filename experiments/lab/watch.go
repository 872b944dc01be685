package lab

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watch ends a machine that says nothing for too long.
type watch struct {
	pid           int
	boot, silence time.Duration
	ended         chan struct{}
	once          sync.Once

	mu    sync.Mutex
	ready bool
	since time.Time     // when the guest last said something
	used  time.Duration // processor time of QEMU's by then
	hung  bool
}

func newWatch(pid int, boot, silence time.Duration) *watch {
	return &watch{pid: pid, boot: boot, silence: silence, ended: make(chan struct{}), since: time.Now()}
}

// heard notes that the guest said something.
func (w *watch) heard(ready bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = w.ready || ready
	w.since, w.used = time.Now(), processorTime(w.pid)
}

// run looks once in a while. There is no event for nothing happening.
func (w *watch) run(qemu *os.Process) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-w.ended:
			return
		case <-tick.C:
		}
		if w.look() {
			qemu.Kill()
			return
		}
	}
}

func (w *watch) look() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	limit := w.boot
	if w.ready {
		limit = w.silence
	}
	w.hung = processorTime(w.pid)-w.used > limit || time.Since(w.since) > 4*limit
	return w.hung
}

func (w *watch) stop() { w.once.Do(func() { close(w.ended) }) }

// expired: the machine was ended because it said nothing.
func (w *watch) expired() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hung
}

// processorTime is what a process, with all its threads, has used of the
// processor: its own clock, whose number is made as clock_getcpuclockid(3)
// makes it (include/linux/posix-timers.h: MAKE_PROCESS_CPUCLOCK, CPUCLOCK_SCHED).
func processorTime(pid int) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
