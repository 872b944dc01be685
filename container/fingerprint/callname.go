package fingerprint

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// callName names the system calls in which programs wait.
func callName(number int) string {
	if name := callNameHere(number); name != "" {
		return name
	}
	switch number {
	case unix.SYS_NANOSLEEP:
		return "nanosleep"
	case unix.SYS_CLOCK_NANOSLEEP:
		return "clock_nanosleep"
	case unix.SYS_RESTART_SYSCALL:
		return "restart_syscall"
	case unix.SYS_FUTEX:
		return "futex"
	case unix.SYS_PPOLL:
		return "ppoll"
	case unix.SYS_PSELECT6:
		return "pselect6"
	case unix.SYS_EPOLL_PWAIT:
		return "epoll_pwait"
	case unix.SYS_READ:
		return "read"
	case unix.SYS_WRITE:
		return "write"
	case unix.SYS_ACCEPT:
		return "accept"
	case unix.SYS_ACCEPT4:
		return "accept4"
	case unix.SYS_RECVFROM:
		return "recvfrom"
	case unix.SYS_RECVMSG:
		return "recvmsg"
	case unix.SYS_WAIT4:
		return "wait4"
	case unix.SYS_WAITID:
		return "waitid"
	case unix.SYS_RT_SIGSUSPEND:
		return "rt_sigsuspend"
	case unix.SYS_RT_SIGTIMEDWAIT:
		return "rt_sigtimedwait"
	case unix.SYS_FCNTL:
		return "fcntl"
	case unix.SYS_FLOCK:
		return "flock"
	}
	return fmt.Sprintf("system call %d", number)
}
