package seccomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:generate go run generate.go

// x32Bit marks the calls of x32, which share their audit architecture with
// those of x86-64 (__X32_SYSCALL_BIT in asm/unistd.h).
const x32Bit = 0x40000000

// arch is one kind of system calls.
type arch struct {
	name  specs.Arch
	audit uint32 // AUDIT_ARCH_* of linux/audit.h, as the filter sees it
	bit   uint32 // set in every number
	wide  bool   // arguments have 64 bits
	names string // "name number name number ..."
}

// archesOf are the kinds of calls that a machine can make, its own first.
func archesOf(goarch string) []arch {
	arm := arch{name: specs.ArchARM, audit: unix.AUDIT_ARCH_ARM, names: namesARM}
	x86 := arch{name: specs.ArchX86, audit: unix.AUDIT_ARCH_I386, names: namesX86}
	switch goarch {
	case "amd64":
		return []arch{
			{name: specs.ArchX86_64, audit: unix.AUDIT_ARCH_X86_64, wide: true, names: namesX86_64},
			{name: specs.ArchX32, audit: unix.AUDIT_ARCH_X86_64, bit: x32Bit, wide: true, names: namesX32},
			x86,
		}
	case "arm64":
		return []arch{{name: specs.ArchAARCH64, audit: unix.AUDIT_ARCH_AARCH64, wide: true, names: namesAArch64}, arm}
	case "riscv64":
		return []arch{{name: specs.ArchRISCV64, audit: unix.AUDIT_ARCH_RISCV64, wide: true, names: namesRISCV64}}
	case "arm":
		return []arch{arm}
	case "386":
		return []arch{x86}
	}
	return nil
}

// wanted picks the kinds of calls a profile is about: this machine's own, and
// what it names.
func wanted(goarch string, named []specs.Arch) ([]arch, error) {
	all := archesOf(goarch)
	if all == nil {
		return nil, fmt.Errorf("no table of system calls for %s", goarch)
	}
	for _, n := range named {
		if !strings.HasPrefix(string(n), "SCMP_ARCH_") {
			return nil, fmt.Errorf("architectures: unknown architecture %q", n)
		}
	}
	var list []arch
	for i, a := range all {
		if i == 0 || slices.Contains(named, a.name) {
			list = append(list, a)
		}
	}
	return list, nil
}

// numbers reads the table of an architecture.
func (a arch) numbers() (map[string]uint32, error) {
	fields := strings.Fields(a.names)
	numbers := make(map[string]uint32, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		n, err := strconv.ParseUint(fields[i+1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("table of %s: %w", a.name, err)
		}
		numbers[fields[i]] = uint32(n) | a.bit
	}
	return numbers, nil
}

// hidden says in which call of x86, and as which number in its first
// argument, another call can be made (linux/net.h, linux/ipc.h).
func hidden(name string) (call string, number uint64) {
	const sockets = " socket bind connect listen accept getsockname getpeername socketpair send recv sendto" +
		" recvfrom shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg "
	if before, _, found := strings.Cut(sockets, " "+name+" "); found {
		return "socketcall", uint64(len(strings.Fields(before)) + 1)
	}
	switch name {
	case "semop":
		return "ipc", 1
	case "semget":
		return "ipc", 2
	case "semctl":
		return "ipc", 3
	case "semtimedop":
		return "ipc", 4
	case "msgsnd":
		return "ipc", 11
	case "msgrcv":
		return "ipc", 12
	case "msgget":
		return "ipc", 13
	case "msgctl":
		return "ipc", 14
	case "shmat":
		return "ipc", 21
	case "shmdt":
		return "ipc", 22
	case "shmget":
		return "ipc", 23
	case "shmctl":
		return "ipc", 24
	}
	return "", 0
}
