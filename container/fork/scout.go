package fork

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// step is what the scout or the child was doing.
type step int32

const (
	stepPid step = iota // nothing wrong: the message is about the child's pid
	stepDumpable
	stepFiles
	stepClose
	stepSetns
	stepGroups
	stepGroup
	stepUser
	stepCapabilities
	stepClone
	stepExec
)

func (s step) String() string {
	switch s {
	case stepDumpable:
		return "become undumpable"
	case stepFiles:
		return "arrange descriptors"
	case stepClose:
		return "close_range"
	case stepSetns:
		return "setns"
	case stepGroups:
		return "setgroups"
	case stepGroup:
		return "set group id 0"
	case stepUser:
		return "set user id 0"
	case stepCapabilities:
		return "give up capabilities"
	case stepClone:
		return "clone"
	case stepExec:
		return "execute the program"
	}
	return "unknown step"
}

// message is what comes back over the socket.
type message struct {
	Step  step
	Errno int32
	Pid   int32
}

// scout holds all that is needed after the fork.
type scout struct {
	fds        []int // what the program gets, then the executable, the pidfd and the socket
	flags      uintptr
	argv, envv []*byte
	empty      *byte // ""
	limit      unix.Rlimit
	keep       uint64 // capabilities; 0: all
	capHeader  unix.CapUserHeader
	caps       [2]unix.CapUserData
	args       cloneArgs // of clone3, where there is a cgroup to be born in
	message    message
	release    [1]byte

	cgroup *os.File
	files  []*os.File // keeps the descriptors open
	owned  []*os.File // to be closed in the parent
}

// cloneArgs is the kernel's struct clone_args (clone(2)).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// The three that package syscall itself uses around its fork. Go keeps them
// for others (go.dev/issue/67401): they block signals, so that no handler of
// the runtime runs in a copy without a runtime, and undo it.
//
//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// fork makes a copy of the process, which becomes the scout and never returns.
// It is a plain fork, without CLONE_VM: a time namespace refuses whoever
// shares memory (current_is_single_threaded in the kernel's timens_install).
//
//go:nosplit
//go:norace
func (s *scout) fork() (pid uintptr, errno syscall.Errno) {
	beforeFork()
	if s.cgroup == nil {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	} else {
		pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&s.args)), unsafe.Sizeof(s.args), 0)
	}
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	s.run()
	return 0, 0
}

// run is the scout, and then the child. The stack cannot grow, nothing can be
// allocated, no other thread is there to unlock anything: so nothing but raw
// system calls.
//
//go:nosplit
//go:norace
func (s *scout) run() {
	var errno syscall.Errno
	s.arrange()
	n := len(s.fds)
	exe, pidfd, socket := n-3, n-2, n-1 // that is where arrange puts them

	// All at once: the kernel then asks for the rights over each namespace
	// with the credentials of before, so that a network namespace which
	// belongs to the host can be entered together with a user namespace.
	if s.flags != 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_SETNS, uintptr(pidfd), s.flags, 0)
	}
	if errno != 0 {
		s.fail(stepSetns, errno, socket)
	}
	if s.flags&unix.CLONE_NEWUSER != 0 {
		s.becomeRoot(socket)
	}
	if s.keep != 0 {
		s.giveUp(socket)
	}
	// After the last change of credentials: each of them sets this to what the
	// sysctl fs.suid_dumpable says.
	_, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0, 0)
	if errno != 0 {
		s.fail(stepDumpable, errno, socket)
	}
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		s.fail(stepClone, errno, socket)
	}
	if pid != 0 {
		// The scout is still in its old pid namespace, so this is the pid
		// that our parent sees.
		s.message = message{Step: stepPid, Pid: int32(pid)}
		s.send(socket)
		s.exit(0)
	}
	r, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(socket), uintptr(unsafe.Pointer(&s.release[0])), 1)
	if errno != 0 || r != 1 {
		s.exit(1) // nobody waits for us any more
	}
	_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(exe), uintptr(unsafe.Pointer(s.empty)),
		uintptr(unsafe.Pointer(&s.argv[0])), uintptr(unsafe.Pointer(&s.envv[0])), unix.AT_EMPTY_PATH, 0)
	s.fail(stepExec, errno, socket)
}

// arrange puts the descriptors at 0, 1, 2 ..., and closes all others. The last
// three, which are not the program's, end with the execve.
//
//go:nosplit
//go:norace
func (s *scout) arrange() {
	n := len(s.fds)
	socket := s.fds[n-1]
	// Out of the way first: all above n, so that none is overwritten.
	for i := range s.fds {
		fd, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(s.fds[i]), unix.F_DUPFD_CLOEXEC, uintptr(n))
		if errno != 0 {
			s.fail(stepFiles, errno, socket)
		}
		s.fds[i] = int(fd)
	}
	socket = s.fds[n-1]
	for i := range s.fds {
		flags := uintptr(0)
		if i >= n-3 {
			flags = unix.O_CLOEXEC
		}
		if _, _, errno := syscall.RawSyscall(unix.SYS_DUP3, uintptr(s.fds[i]), uintptr(i), flags); errno != 0 {
			s.fail(stepFiles, errno, socket)
		}
	}
	// Only now: descriptors above a limit could not be made any more.
	syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&s.limit)), 0, 0, 0)
	if _, _, errno := syscall.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(n), uintptr(^uint32(0)), 0); errno != 0 {
		s.fail(stepClose, errno, n-1)
	}
}

// becomeRoot takes the ids on under which a user namespace knows its own root;
// the execve would take the capabilities from anybody else.
//
//go:nosplit
//go:norace
func (s *scout) becomeRoot(socket int) {
	if _, _, errno := syscall.RawSyscall(sysSetgroups, 0, 0, 0); errno != 0 {
		s.fail(stepGroups, errno, socket)
	}
	if _, _, errno := syscall.RawSyscall(sysSetresgid, 0, 0, 0); errno != 0 {
		s.fail(stepGroup, errno, socket)
	}
	if _, _, errno := syscall.RawSyscall(sysSetresuid, 0, 0, 0); errno != 0 {
		s.fail(stepUser, errno, socket)
	}
}

// giveUp leaves the capabilities that are to be kept. The execve of a root gives
// back all that is in the bounding set.
//
//go:nosplit
//go:norace
func (s *scout) giveUp(socket int) {
	for n := uintptr(0); n < 64; n++ {
		has, _, errno := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, n, 0, 0, 0, 0)
		if errno != 0 {
			break // EINVAL: the kernel knows no capability from here on
		}
		if has == 0 || s.keep>>n&1 != 0 {
			continue
		}
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0, 0, 0, 0); errno != 0 {
			s.fail(stepCapabilities, errno, socket)
		}
	}
	s.capHeader.Version = unix.LINUX_CAPABILITY_VERSION_3
	if _, _, errno := syscall.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&s.capHeader)), uintptr(unsafe.Pointer(&s.caps)), 0); errno != 0 {
		s.fail(stepCapabilities, errno, socket)
	}
	s.lessen(&s.caps[0], uint32(s.keep))
	s.lessen(&s.caps[1], uint32(s.keep>>32))
	if _, _, errno := syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&s.capHeader)), uintptr(unsafe.Pointer(&s.caps)), 0); errno != 0 {
		s.fail(stepCapabilities, errno, socket)
	}
}

//go:nosplit
//go:norace
func (s *scout) lessen(word *unix.CapUserData, keep uint32) {
	word.Permitted &= keep
	word.Effective &= keep
	word.Inheritable &= keep
}

//go:nosplit
//go:norace
func (s *scout) fail(at step, errno syscall.Errno, socket int) {
	s.message = message{Step: at, Errno: int32(errno)}
	s.send(socket)
	s.exit(1)
}

//go:nosplit
//go:norace
func (s *scout) send(socket int) {
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(socket), uintptr(unsafe.Pointer(&s.message)), unsafe.Sizeof(s.message))
}

//go:nosplit
//go:norace
func (s *scout) exit(code uintptr) {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, code, 0, 0)
	}
}
