package fingerprint

import "golang.org/x/sys/unix"

// callNameHere names those that newer architectures do without.
func callNameHere(number int) string {
	switch number {
	case unix.SYS_POLL:
		return "poll"
	case unix.SYS_SELECT:
		return "select"
	case unix.SYS_EPOLL_WAIT:
		return "epoll_wait"
	case unix.SYS_PAUSE:
		return "pause"
	}
	return ""
}
