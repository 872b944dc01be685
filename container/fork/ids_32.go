//go:build arm || 386

package fork

import "golang.org/x/sys/unix"

// The calls without the 32 take ids of 16 bits.
const (
	sysSetgroups = unix.SYS_SETGROUPS32
	sysSetresgid = unix.SYS_SETRESGID32
	sysSetresuid = unix.SYS_SETRESUID32
)
