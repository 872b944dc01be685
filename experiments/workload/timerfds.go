package workload

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

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
