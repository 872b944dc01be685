package workload

import (
	"fmt"
	"os"
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
		{Name: "posix-timer-thread", Question: "Does a POSIX timer that signals one thread still do so?", program: posixTimerThread,
			Known: &Known{StepRestore, "CRIU saves the number that the thread has outside of the container's pid namespace (criu/proc_parse.c, parse_posix_timers)"}},
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

// timerspec is struct itimerspec.
type timerspec struct{ interval, value unix.Timespec }

func every(interval, value time.Duration) *timerspec {
	return &timerspec{unix.NsecToTimespec(int64(interval)), unix.NsecToTimespec(int64(value))}
}

// sigevent is struct sigevent.
type sigevent struct {
	value         uintptr
	signo, notify int32
	tid           int32
	_             [11]int32
}

const sigevSignal, sigevThreadID = 0, 4 // SIGEV_SIGNAL, SIGEV_THREAD_ID

// newTimer makes a POSIX timer that sends the calling process a signal, or the
// calling thread alone. It may be called in a forked child.
func newTimer(clock uintptr, sig unix.Signal, notify int32, value *timerspec) (id int32, errno unix.Errno) {
	tid, _, _ := unix.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	e := sigevent{signo: int32(sig), notify: notify, tid: int32(tid), value: 77}
	_, _, errno = unix.RawSyscall(unix.SYS_TIMER_CREATE, clock, uintptr(unsafe.Pointer(&e)), uintptr(unsafe.Pointer(&id)))
	if errno == 0 {
		_, _, errno = unix.RawSyscall6(unix.SYS_TIMER_SETTIME, uintptr(id), 0, uintptr(unsafe.Pointer(value)), 0, 0, 0)
	}
	return id, errno
}

func posixTimer() (func() error, error) {
	clocks := []uintptr{unix.CLOCK_MONOTONIC, unix.CLOCK_REALTIME, unix.CLOCK_BOOTTIME}
	ids := make([]int32, len(clocks)+1)
	var errno unix.Errno
	// One that goes again leaves a gap in the numbers.
	if ids[0], errno = newTimer(unix.CLOCK_MONOTONIC, 40, sigevSignal, every(0, 0)); errno != 0 {
		return nil, lacks("POSIX timers", errno)
	}
	for i, clock := range clocks {
		if ids[i+1], errno = newTimer(clock, 41, sigevSignal, every(77*time.Second, 5000*time.Second)); errno != 0 {
			return nil, fmt.Errorf("make a timer on clock %d: %w", clock, errno)
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

// posixTimerTicks asks a forked child, where no thread of the runtime takes the
// signals.
func posixTimerTicks() (func() error, error) {
	const sig = unix.Signal(42)
	set, period := setOf(sig), every(2*time.Millisecond, 2*time.Millisecond)
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	if _, err := fork(func() {
		_, errno := newTimer(unix.CLOCK_MONOTONIC, sig, sigevSignal, period)
		l.tell(byte(errno))
		for {
			l.hear()
			var i info
			unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), uintptr(unsafe.Pointer(&i)), 0, sigsetSize, 0, 0)
			l.tell(byte(i.value()))
		}
	}); err != nil {
		return nil, err
	}
	errno, err := l.answer()
	if err != nil {
		return nil, err
	}
	if errno != 0 {
		return nil, lacks("POSIX timers", unix.Errno(errno))
	}
	check := func() error {
		for range 3 {
			value, err := l.ask(0)
			if err := first(err, same("value that came with the signal", value, byte(77))); err != nil {
				return err
			}
		}
		return nil
	}
	return check, check()
}

func posixTimerThread() (func() error, error) {
	id, errno := newTimer(unix.CLOCK_MONOTONIC, 41, sigevThreadID, every(0, 5000*time.Second))
	if errno != 0 {
		return nil, lacks("POSIX timers", errno)
	}
	return func() error {
		text, err := os.ReadFile("/proc/self/timers")
		if want := fmt.Sprintf("ID: %d\n", id); err == nil && !strings.Contains(string(text), want) {
			err = fmt.Errorf("there is no timer %d: %q", id, text)
		}
		return first(err, same("notify", strings.Contains(string(text), fmt.Sprintf("/tid.%d\n", unix.Gettid())), true))
	}, nil
}

// sleeping has a child that sleeps for longer than anybody waits, and says so
// if it does not.
// waiting waits until a process is in one of the system calls. When it has said
// something before, it is not.
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
