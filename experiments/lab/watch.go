package lab

import (
	"os"
	"sync"
	"time"

	"crucible/container/proc"
)

// watch ends a machine that says nothing for too long. Time in which the host
// did not let it run is not held against it: silence counts only as far as QEMU
// executed the guest's instructions meanwhile, or as the host let us look.
type watch struct {
	pid           int
	boot, silence time.Duration
	ended         chan struct{}
	once          sync.Once

	mu    sync.Mutex
	ready bool
	used  time.Duration // user time of QEMU's when the guest last said something
	quiet time.Duration // since then, by our own looks
	hung  bool
}

const lookEvery = 250 * time.Millisecond

func newWatch(pid int, boot, silence time.Duration) *watch {
	return &watch{pid: pid, boot: boot, silence: silence, ended: make(chan struct{})}
}

// heard notes that the guest said something.
func (w *watch) heard(ready bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = w.ready || ready
	w.quiet, w.used = 0, userTime(w.pid)
}

// run looks once in a while. There is no event for nothing happening.
func (w *watch) run(qemu *os.Process) {
	tick := time.NewTicker(lookEvery)
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
	w.quiet += lookEvery
	w.hung = userTime(w.pid)-w.used > limit || w.quiet > 4*limit
	return w.hung
}

func (w *watch) stop() { w.once.Do(func() { close(w.ended) }) }

// expired: the machine was ended because it said nothing.
func (w *watch) expired() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hung
}

// userTime is what QEMU has spent outside of the host's kernel: translating and
// executing, or in the guest by KVM, which counts as user time, too. A machine
// short of memory spends its time inside.
func userTime(pid int) time.Duration {
	s, err := proc.FS("/proc").Stat(pid)
	if err != nil {
		return 0
	}
	const tick = time.Second / 100 // USER_HZ, proc_pid_stat(5)
	return time.Duration(s.UTicks) * tick
}
