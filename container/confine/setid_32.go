//go:build arm || 386

package confine

import "golang.org/x/sys/unix"

// The calls without the 32 take ids of 16 bits.
const (
	sysSetresuid = unix.SYS_SETRESUID32
	sysSetresgid = unix.SYS_SETRESGID32
)
