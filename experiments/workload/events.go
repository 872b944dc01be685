package workload

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eventCases ask about descriptors by which a program is told of something.
func eventCases() []Case {
	return []Case{
		{Name: "eventfd", Question: "Does an eventfd keep its counter?", program: eventfd(unix.EFD_NONBLOCK, 5)},
		{Name: "eventfd-semaphore", Question: "Is an eventfd that is a semaphore still one?", program: eventfd(unix.EFD_NONBLOCK|unix.EFD_SEMAPHORE, 1, 1, 1, 1, 1),
			Known: &Known{StepCheck, "CRIU does not save what kind an eventfd is (criu/eventfd.c): it becomes a plain counter"}},
		{Name: "epoll", Question: "Does an epoll keep what it watches, how, and the data registered with it?", program: epolls},
		{Name: "signalfd", Question: "Does a signalfd still read the signals of its mask, one that waits too?", program: signalfds},
		{Name: "inotify", Question: "Does an inotify watch still see changes?", program: inotify},
		{Name: "fanotify", Question: "Does a fanotify mark still see changes?",
			define: func(d *definition) { d.CapAdd = []string{"SYS_ADMIN"} }, program: fanotify},
		{Name: "pidfd", Question: "Does a pidfd still stand for its process?", program: pidfd},
		{Name: "io-uring-refused", Question: "Is a program with an io_uring told apart before the freeze, and left running?", program: ioUring, plot: refusedPlot},
	}
}

// eventfd is the program with one whose counter is 5, and what reads give.
func eventfd(flags int, want ...uint64) program {
	return func() (func() error, error) {
		fd, err := unix.Eventfd(5, flags|unix.EFD_CLOEXEC)
		if err != nil {
			return nil, lacks("eventfd", err)
		}
		return func() error {
			for _, w := range want {
				b, err := receive(fd, 8)
				if err != nil {
					return err
				}
				if err := same("counter", binary.NativeEndian.Uint64(b), w); err != nil {
					return err
				}
			}
			_, err := unix.Read(fd, make([]byte, 8))
			return same("one more read", err, error(unix.EAGAIN))
		}, nil
	}
}

func epolls() (func() error, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, lacks("epoll", err)
	}
	var level, edge, quiet [2]int
	for i, p := range []*[2]int{&level, &edge, &quiet} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return nil, err
		}
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(100 + i), Pad: int32(7 * i)}
		if i == 1 {
			e.Events |= unix.EPOLLET
		}
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, p[0], &e); err != nil {
			return nil, fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	wait := func(want ...int32) error {
		events := make([]unix.EpollEvent, 10)
		n, err := unix.EpollWait(poll, events, 0)
		if err != nil {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		var got []int32
		for _, e := range events[:n] {
			got = append(got, e.Fd, e.Pad)
		}
		return same("events", got, want)
	}
	if err := first(send(level[1], []byte("x")), wait(100, 0)); err != nil {
		return nil, err
	}
	return func() error {
		if err := first(wait(100, 0), send(quiet[1], []byte("x")), wait(100, 0, 102, 14)); err != nil {
			return err
		}
		// The edge is told once, the levels for as long as they last.
		return first(send(edge[1], []byte("x")), drain(level[0]), drain(quiet[0]), wait(101, 7), wait())
	}, nil
}

func drain(fd int) error { _, err := receive(fd, 1); return err }

func signalfds() (func() error, error) {
	set := setOf(unix.SIGUSR2, 45)
	sigprocmask(unix.SIG_BLOCK, &set, nil)
	var mask unix.Sigset_t
	for _, sig := range []uint{uint(unix.SIGUSR2), 45} {
		bits := uint(8 * unsafe.Sizeof(mask.Val[0]))
		mask.Val[(sig-1)/bits] |= 1 << ((sig - 1) % bits)
	}
	fd, err := unix.Signalfd(-1, &mask, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	if err != nil {
		return nil, lacks("signalfd", err)
	}
	// To this thread: any other does not block it.
	kill := func(sig unix.Signal) error { return unix.Tgkill(os.Getpid(), unix.Gettid(), sig) }
	read := func(want unix.Signal) error {
		b, err := receive(fd, 128) // struct signalfd_siginfo
		if err != nil {
			return err
		}
		return same("signal", unix.Signal(binary.NativeEndian.Uint32(b)), want)
	}
	return func() error { return first(read(unix.SIGUSR2), kill(45), read(45)) }, kill(unix.SIGUSR2)
}

func ioUring() (func() error, error) {
	const submissionRing = 0 // IORING_OFF_SQ_RING
	parameters := make([]byte, 120)
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&parameters[0])), 0)
	if errno != 0 {
		return nil, lacks("io_uring", errno, unix.EPERM)
	}
	if _, err := unix.Mmap(int(fd), submissionRing, page, readWrite, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the ring: %w", err)
	}
	return func() error { return nil }, nil
}
