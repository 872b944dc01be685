package builtin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"crucible/experiments/plan"
)

// holdings are what a process has and can look at.
type holdings struct {
	threads  []int // their ids
	events   []int // eventfds; the Nth has the value N+1
	mappings [][]byte
	memory   *memory
	timers   []int
	files    []*os.File
}

func hold(b plan.Builtin) (*holdings, error) {
	h := &holdings{}
	for _, make := range []func() error{
		func() error { return h.makeEvents(b.Descriptors) },
		func() error { return h.makeMappings(b.Mappings) },
		func() error { return h.makeTimers(b.Timers) },
		func() error { return h.makeFiles(b.Files) },
		func() (err error) { h.memory, err = newMemory(int(b.Memory), int(b.Dirty)); return err },
	} {
		if err := make(); err != nil {
			return nil, err
		}
	}
	h.threads = startThreads(b.Threads)
	return h, nil
}

func (h *holdings) check() error {
	return errors.Join(h.checkThreads(), h.checkEvents(), h.checkMappings(), h.checkTimers(), h.checkFiles(), h.memory.check())
}

func (h *holdings) checkThreads() error {
	for _, tid := range h.threads {
		if err := unix.Tgkill(os.Getpid(), tid, 0); err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
	}
	return nil
}

func (h *holdings) makeEvents(count int) error {
	// Beside the runtime's own.
	if err := room(count); err != nil {
		return err
	}
	for i := range count {
		fd, err := unix.Eventfd(uint(i+1), unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return fmt.Errorf("eventfd %d: %w", i, err)
		}
		h.events = append(h.events, fd)
	}
	return nil
}

// room makes the limit of descriptors high enough.
func room(count int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	want := uint64(count) + 256
	if limit.Cur >= want {
		return nil
	}
	limit.Cur, limit.Max = want, max(limit.Max, want)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d descriptors: setrlimit: %w", count, err)
	}
	return nil
}

func (h *holdings) checkEvents() error {
	for i, fd := range h.events {
		var b [8]byte
		if _, err := unix.Read(fd, b[:]); err != nil {
			return fmt.Errorf("eventfd %d: %w", i, err)
		}
		if got := binary.NativeEndian.Uint64(b[:]); got != uint64(i+1) {
			return fmt.Errorf("eventfd %d: %d, before %d", i, got, i+1)
		}
		if _, err := unix.Write(fd, b[:]); err != nil {
			return fmt.Errorf("eventfd %d: %w", i, err)
		}
	}
	return nil
}

// makeMappings makes mappings of one page, each with other rights than the one
// before, or the kernel would make one of them.
func (h *holdings) makeMappings(count int) error {
	for i := range count {
		m, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return fmt.Errorf("mapping %d: %w", i, err)
		}
		copy(m, line(i))
		if i%2 == 1 {
			if err := unix.Mprotect(m, unix.PROT_READ); err != nil {
				return fmt.Errorf("mapping %d: %w", i, err)
			}
		}
		h.mappings = append(h.mappings, m)
	}
	return nil
}

func line(i int) []byte { return fmt.Appendf(nil, "holding %d\n", i) }

func (h *holdings) checkMappings() error {
	for i, m := range h.mappings {
		if !bytes.HasPrefix(m, line(i)) {
			return fmt.Errorf("mapping %d: %q, before %q", i, m[:len(line(i))], line(i))
		}
	}
	return nil
}

// period of the timers: they never expire in a test.
const period = 3600

func (h *holdings) makeTimers(count int) error {
	for i := range count {
		fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
		if err != nil {
			return fmt.Errorf("timer %d: %w", i, err)
		}
		each := unix.Timespec{Sec: period}
		if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: each, Value: each}, nil); err != nil {
			return fmt.Errorf("timer %d: %w", i, err)
		}
		h.timers = append(h.timers, fd)
	}
	return nil
}

func (h *holdings) checkTimers() error {
	for i, fd := range h.timers {
		var now unix.ItimerSpec
		if err := unix.TimerfdGettime(fd, &now); err != nil {
			return fmt.Errorf("timer %d: %w", i, err)
		}
		if left := time.Duration(now.Value.Nano()); now.Interval.Sec != period || left <= 0 || left > period*time.Second {
			return fmt.Errorf("timer %d: %v left, every %ds", i, left, now.Interval.Sec)
		}
	}
	return nil
}

func (h *holdings) makeFiles(count int) error {
	if err := room(len(h.events) + count); err != nil {
		return err
	}
	for i := range count {
		f, err := os.CreateTemp("", "held-*")
		if err != nil {
			return err
		}
		if _, err := f.Write(line(i)); err != nil {
			return err
		}
		h.files = append(h.files, f)
	}
	return nil
}

func (h *holdings) checkFiles() error {
	for i, f := range h.files {
		at, err := f.Seek(0, 1)
		if err != nil {
			return fmt.Errorf("file %d: %w", i, err)
		}
		if at != int64(len(line(i))) {
			return fmt.Errorf("file %d: at %d, before at %d", i, at, len(line(i)))
		}
		b := make([]byte, len(line(i)))
		if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, line(i)) {
			return fmt.Errorf("file %d: %q, before %q (%v)", i, b, line(i), err)
		}
	}
	return nil
}
