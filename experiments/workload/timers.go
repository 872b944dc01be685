package workload

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func timerCases() []Case {
	return []Case{
		{Name: "itimer-real", Question: "Does an alarm keep its interval and the time that is left?", program: itimer(unix.ItimerReal)},
		{Name: "itimer-virtual", Question: "Does a timer of a process's own processor time keep what is left?", program: itimer(unix.ItimerVirtual)},
		{Name: "itimer-prof", Question: "Does a profiling timer keep what is left?", program: itimer(unix.ItimerProf)},
		{Name: "posix-timer", Question: "Do POSIX timers keep their numbers, intervals and the time that is left?", program: posixTimer},
		{Name: "posix-timer-ticks", Question: "Does a periodic POSIX timer go on to send its signal?", program: posixTimerTicks},
		{Name: "timerfd-oneshot", Question: "Does a timerfd keep the time that is left?", Needs: []string{"criu/timerfd"}, program: timerfdOneshot},
		{Name: "timerfd-periodic", Question: "Does a periodic timerfd go on to tick?", Needs: []string{"criu/timerfd"}, program: timerfdPeriodic},
		{Name: "timerfd-expired", Question: "Can an expiry of a timerfd that nobody has read before be read after the restore?", Needs: []string{"criu/timerfd"}, program: timerfdExpired},
		{Name: "nanosleep", Question: "Does a process that sleeps by nanosleep sleep on?",
			Known: &Known{StepCheck, "a sleep that CRIU interrupts ends with EINTR: the kernel keeps how to go on in the task (restart_block), which is not saved"}, program: sleeping(unix.SYS_NANOSLEEP)},
		{Name: "blocked-read", Question: "Does a read that waits at the checkpoint get what is written after the restore?", program: blockedRead},
		{Name: "monotonic-clock", Question: "Does the monotonic clock of a container without a time namespace not run backwards on the same host?", program: monotonicClock},
	}
}

// slack is by how much less a timer may have left than before: nobody knows how
// long a checkpoint and a restore take, but not so long.
const slack = 10 * time.Minute

func left(what string, before, after time.Duration) error {
	if after > before || after < before-slack {
		return fmt.Errorf("%s: %v are left, before %v", what, after, before)
	}
	return nil
}

func itimer(which unix.ItimerWhich) program {
	return func() (func() error, error) {
		value := unix.Itimerval{Interval: unix.NsecToTimeval(int64(77 * time.Second)), Value: unix.NsecToTimeval(int64(5000 * time.Second))}
		if _, err := unix.Setitimer(which, value); err != nil {
			return nil, fmt.Errorf("setitimer: %w", err)
		}
		return func() error {
			now, err := unix.Getitimer(which)
			return first(err,
				same("interval", time.Duration(now.Interval.Nano()), 77*time.Second),
				// The kernel rounds up to its tick, and tells some microseconds more.
				left("time", 5000*time.Second+time.Second, time.Duration(now.Value.Nano())))
		}, nil
	}
}

// itimerspec is struct itimerspec of 64 bits each.
type timerspec struct{ interval, value unix.Timespec }

func every(interval, value time.Duration) *timerspec {
	return &timerspec{unix.NsecToTimespec(int64(interval)), unix.NsecToTimespec(int64(value))}
}

// sigevent is struct sigevent: sigev_value, signo, notify, thread.
type sigevent struct {
	value         uintptr
	signo, notify int32
	tid           int32
	_             [11]int32
}

const sigevThreadID = 4 // SIGEV_THREAD_ID

// newTimer makes a POSIX timer that sends the calling thread a signal.
func newTimer(clock uintptr, sig unix.Signal, value *timerspec) (id int32, err error) {
	e := sigevent{signo: int32(sig), notify: sigevThreadID, tid: int32(unix.Gettid()), value: 4711}
	_, _, errno := unix.RawSyscall(unix.SYS_TIMER_CREATE, clock, uintptr(unsafe.Pointer(&e)), uintptr(unsafe.Pointer(&id)))
	if errno == 0 {
		_, _, errno = unix.RawSyscall6(unix.SYS_TIMER_SETTIME, uintptr(id), 0, uintptr(unsafe.Pointer(value)), 0, 0, 0)
	}
	if errno != 0 {
		return id, lacks("POSIX timers", errno)
	}
	return id, nil
}

func posixTimer() (func() error, error) {
	clocks := []uintptr{unix.CLOCK_MONOTONIC, unix.CLOCK_REALTIME, unix.CLOCK_BOOTTIME}
	ids := make([]int32, len(clocks)+1)
	var err error
	// One that goes again leaves a gap in the numbers.
	if ids[0], err = newTimer(unix.CLOCK_MONOTONIC, 40, every(0, 0)); err != nil {
		return nil, err
	}
	for i, clock := range clocks {
		if ids[i+1], err = newTimer(clock, 41, every(77*time.Second, 5000*time.Second)); err != nil {
			return nil, err
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_TIMER_DELETE, uintptr(ids[0]), 0, 0); errno != 0 {
		return nil, fmt.Errorf("timer_delete: %w", errno)
	}
	return func() error {
		for _, id := range ids[1:] {
			var now timerspec
			if _, _, errno := unix.RawSyscall(unix.SYS_TIMER_GETTIME, uintptr(id), uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
				return fmt.Errorf("timer_gettime %d: %w", id, errno)
			}
			err := first(same("interval", time.Duration(now.interval.Nano()), 77*time.Second), left("timer", 5000*time.Second, time.Duration(now.value.Nano())))
			if err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func posixTimerTicks() (func() error, error) {
	const sig = unix.Signal(42)
	set := setOf(sig)
	sigprocmask(unix.SIG_BLOCK, &set, nil)
	if _, err := newTimer(unix.CLOCK_MONOTONIC, sig, every(2*time.Millisecond, 2*time.Millisecond)); err != nil {
		return nil, err
	}
	tick := func() error {
		var i info
		limit := unix.NsecToTimespec(int64(patience))
		for {
			got, _, errno := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), uintptr(unsafe.Pointer(&i)), uintptr(unsafe.Pointer(&limit)), sigsetSize, 0, 0)
			if errno == unix.EINTR {
				continue
			}
			if errno != 0 {
				return fmt.Errorf("wait for the timer's signal: %w", errno)
			}
			return first(same("signal", unix.Signal(got), sig), same("value", i.value(), int32(4711)))
		}
	}
	return func() error { return first(tick(), tick(), tick()) }, tick()
}

func newTimerfd(interval, value time.Duration) (fd int, err error) {
	fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return 0, lacks("timerfd", err)
	}
	spec := &unix.ItimerSpec{Interval: unix.NsecToTimespec(int64(interval)), Value: unix.NsecToTimespec(int64(value))}
	return fd, unix.TimerfdSettime(fd, 0, spec, nil)
}

func expiries(fd int) error {
	b, err := receive(fd, 8)
	if err == nil && binary.NativeEndian.Uint64(b) == 0 {
		err = fmt.Errorf("the timer has expired no time")
	}
	return err
}

func timerfdOneshot() (func() error, error) {
	fd, err := newTimerfd(0, 5000*time.Second)
	return func() error {
		var now unix.ItimerSpec
		err := unix.TimerfdGettime(fd, &now)
		return first(err, same("interval", now.Interval.Nano(), int64(0)), left("timerfd", 5000*time.Second, time.Duration(now.Value.Nano())))
	}, err
}

func timerfdPeriodic() (func() error, error) {
	fd, err := newTimerfd(2*time.Millisecond, 2*time.Millisecond)
	if err != nil {
		return nil, err
	}
	return func() error { return first(expiries(fd), expiries(fd), expiries(fd)) }, expiries(fd)
}

func timerfdExpired() (func() error, error) {
	once, err := newTimerfd(0, time.Nanosecond)
	if err != nil {
		return nil, err
	}
	again, err := newTimerfd(time.Millisecond, time.Nanosecond)
	if err != nil {
		return nil, err
	}
	return func() error { return first(expiries(once), expiries(again), expiries(again), expiries(again)) }, first(readable(once), readable(again))
}

// sleeping has a child that sleeps for longer than anybody waits, and says so
// if it does not.
func sleeping(number uintptr) program {
	return func() (func() error, error) {
		l, err := newLine()
		if err != nil {
			return nil, err
		}
		long := unix.NsecToTimespec(int64(24 * time.Hour))
		pid, err := fork(func() {
			errno := rawNanosleep(&long)
			l.tell(byte(errno))
			pause()
		})
		if err != nil {
			return nil, err
		}
		// A sleep that was interrupted is gone on with by restart_syscall(2).
		asleep := func() error { return waiting(pid, l.up[0], number, unix.SYS_RESTART_SYSCALL) }
		return asleep, asleep()
	}
}

// waiting waits until a process is in one of the system calls. When it has said
// something before, it is not.
func waiting(pid, up int, calls ...uintptr) error {
	var want []string
	for _, c := range calls {
		want = append(want, fmt.Sprint(c))
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(up), Events: unix.POLLIN}}, 1)
		if n > 0 && err == nil {
			b, err := receive(up, 1)
			return first(err, fmt.Errorf("the call ended with %w", unix.Errno(b[0])))
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid)) // "running" while it is
		if err != nil {
			return err
		}
		call, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		if f, err := statFields(pid); err == nil && f[0] == "S" && slices.Contains(want, call) {
			return nil
		}
	}
	return fmt.Errorf("process %d is not in system call %v after %v", pid, want, patience)
}

func blockedRead() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	pid, err := fork(func() {
		var b [1]byte
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(l.down[0]), uintptr(unsafe.Pointer(&b)), 1)
		if errno != 0 || n != 1 {
			b[0] = 255
		}
		l.tell(b[0])
		pause()
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		got, err := l.ask(5)
		return first(err, same("what the read gave", got, byte(5)))
	}, waiting(pid, l.up[0], unix.SYS_READ)
}

func monotonicClock() (func() error, error) {
	var before unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	return func() error {
		var after unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
		if after.Nano() <= before.Nano() {
			err = first(err, fmt.Errorf("the clock went from %d to %d ns", before.Nano(), after.Nano()))
		}
		return err
	}, err
}
