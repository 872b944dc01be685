package workload

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func signalCases() []Case {
	return []Case{
		{Name: "signal-handlers", Question: "Do handlers, flags and ignored signals survive?", program: signalHandlers},
		{Name: "signal-masks", Question: "Does every thread keep its own mask of blocked signals?", program: signalMasks},
		{Name: "signal-stack", Question: "Does a thread keep its alternative signal stack?", program: signalStack},
		{Name: "pending-signals", Question: "Are signals that wait, of a process and of a thread, delivered after the restore?", program: pendingSignals},
		{Name: "queued-signals", Question: "Do queued signals keep their order and the data sent along?", program: queuedSignals},
	}
}

// handler is the kernel's struct sigaction, as large as on any of our
// architectures.
type handler [8]uintptr

func action(sig unix.Signal, act, old *handler) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), sigsetSize, 0, 0)
	if errno != 0 {
		return fmt.Errorf("sigaction %d: %w", sig, errno)
	}
	return nil
}

func signalHandlers() (func() error, error) {
	// One is ignored, and one falls back to its default; the rest are the
	// runtime's.
	var ignored, usual handler
	ignored[0] = 1 // SIG_IGN
	if err := first(action(unix.SIGWINCH, &ignored, nil), action(unix.SIGHUP, &usual, nil)); err != nil {
		return nil, err
	}
	return unchanged(func() (string, error) {
		out := ""
		for sig := unix.Signal(1); sig <= 64; sig++ {
			var h handler
			if err := action(sig, nil, &h); err != nil {
				return "", err
			}
			out += fmt.Sprintf("signal %d: %x\n", sig, h)
		}
		text, err := threadStatus("SigIgn", "SigCgt")
		return out + text, err
	})
}

func signalMasks() (func() error, error) {
	const count = 3
	ask, answers := make(chan struct{}), make(chan error)
	for i := range unix.Signal(count) {
		go func() {
			runtime.LockOSThread()
			set := setOf(34+i, 40+2*i, unix.SIGWINCH)
			sigprocmask(unix.SIG_SETMASK, &set, nil)
			check, err := unchanged(func() (string, error) { return threadStatus("SigBlk") })
			answers <- err
			<-ask
			answers <- check()
		}()
		if err := <-answers; err != nil {
			return nil, err
		}
	}
	return func() error {
		close(ask)
		var err error
		for range count {
			err = first(err, <-answers)
		}
		return err
	}, nil
}

// signalStack asks a forked child: the runtime gives its threads stacks of their
// own, and takes them along.
func signalStack() (func() error, error) {
	type stack struct {
		start unsafe.Pointer
		flags int32
		size  uintptr
	}
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	memory := make([]byte, 64<<10)
	mine, got := &stack{start: unsafe.Pointer(&memory[0]), size: uintptr(len(memory))}, &stack{}
	_, err = fork(func() {
		unix.RawSyscall(unix.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(mine)), 0, 0)
		for {
			l.hear()
			unix.RawSyscall(unix.SYS_SIGALTSTACK, 0, uintptr(unsafe.Pointer(got)), 0)
			if *got == *mine {
				l.tell(1)
			} else {
				l.tell(0)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	check := func() error {
		yes, err := l.ask(0)
		return first(err, same("as it was set", yes, byte(1)))
	}
	return check, check()
}

// info is the kernel's siginfo_t of a signal that a process sent: signal, errno,
// code, and on a 64-bit machine a gap, pid, uid, value.
type info [32]int32

func (i *info) value() int32 { return i[5+gap] }

// gap is 1 on a 64-bit machine, 0 on a 32-bit one.
const gap = int(unsafe.Sizeof(uintptr(0)) / 8)

const siQueue = -1 // SI_QUEUE

// taken dequeues a signal in a forked child, or gives 0 if none waits.
func taken(set *sigset, i *info) unix.Signal {
	var now unix.Timespec
	sig, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(i)), uintptr(unsafe.Pointer(&now)), sigsetSize, 0, 0)
	if errno != 0 {
		return 0
	}
	return unix.Signal(sig)
}

func pendingSignals() (func() error, error) {
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	one, two := setOf(unix.SIGUSR1), setOf(unix.SIGUSR2)
	pid, err := fork(func() {
		var i info
		for {
			l.hear()
			l.tell(byte(taken(&one, &i)))
			l.tell(byte(taken(&two, &i)))
		}
	})
	if err != nil {
		return nil, err
	}
	err = first(unix.Kill(pid, unix.SIGUSR1), unix.Tgkill(pid, pid, unix.SIGUSR2))
	if err != nil {
		return nil, err
	}
	pending, err := unchanged(func() (string, error) { return status(pid, "SigPnd", "ShdPnd") })
	return func() error {
		if err := first(pending(), send(l.down[1], []byte{0})); err != nil {
			return err
		}
		got, err := receive(l.up[0], 2)
		return first(err, same("signals", got, []byte{byte(unix.SIGUSR1), byte(unix.SIGUSR2)}))
	}, err
}

func queuedSignals() (func() error, error) {
	const sig = unix.Signal(40)
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	set := setOf(sig)
	pid, err := fork(func() {
		var i info
		for {
			l.hear()
			for range 3 {
				if taken(&set, &i) != sig {
					l.tell(0)
					continue
				}
				l.tell(byte(i.value()))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for value := range int32(3) {
		var i info
		i[0], i[2], i[3+gap] = int32(sig), siQueue, int32(unix.Getpid())
		i[5+gap] = 41 + value
		if _, _, errno := unix.RawSyscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(sig), uintptr(unsafe.Pointer(&i))); errno != 0 {
			return nil, fmt.Errorf("sigqueue: %w", errno)
		}
	}
	return func() error {
		if err := send(l.down[1], []byte{0}); err != nil {
			return err
		}
		got, err := receive(l.up[0], 3)
		return first(err, same("values", got, []byte{41, 42, 43}))
	}, nil
}
