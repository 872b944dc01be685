package workload

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigset is the kernel's set of signals, of 64 bits on each of our
// architectures; signal N is bit N-1.
type sigset [2]uint32

func setOf(signals ...unix.Signal) sigset {
	var s sigset
	for _, sig := range signals {
		s[(sig-1)/32] |= 1 << ((sig - 1) % 32)
	}
	return s
}

func fullSet() sigset { return sigset{^uint32(0), ^uint32(0)} }

const sigsetSize = unsafe.Sizeof(sigset{})

// sigprocmask is for the calling thread alone. It may be called in a forked child.
func sigprocmask(how int, set, old *sigset) {
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, uintptr(how), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), sigsetSize, 0, 0)
}
