// Package seccomp compiles a bundle's system call profile into a filter for
// the kernel.
//
// A profile (linux.seccomp of a bundle) is a default action and a list of
// rules: names, conditions on the arguments, an action. A filter is a program
// of the kernel's classic BPF, which is given the number and the arguments of
// each system call and returns the action.
//
//	filter, err := seccomp.Compile(spec.Linux.Seccomp)   // in the command
//	...
//	err = filter.Load()                                  // in the container's init
//
// It means what libseccomp makes of the same profile:
//
//   - A name that the architecture does not have is skipped.
//   - A rule with the default action is skipped.
//   - All conditions of a rule must hold; but if two are about the same
//     argument, each of them is a rule of its own.
//   - A rule without conditions covers all rules for the same call, and of two
//     such rules the first counts; rules with conditions are tried in order.
//   - Calls of an architecture that the profile does not name end the process.
//
// Differences: an architecture that this machine cannot execute is skipped;
// SCMP_ARCH_X86's socketcall and ipc follow the rules for the calls that hide
// in them, but conditions cannot look behind their pointer.
//
// Why not a library: libseccomp needs cgo. elastic/go-seccomp-bpf v1.6.0 takes
// one architecture and applies the default action to all others (so an
// allow-by-default profile does not hold for 32-bit calls), refuses unknown
// names, has no SCMP_CMP_MASKED_EQ, and fills its tables at package level,
// which would cost each start of our executable 0.14 ms and 160 KiB. The
// numbers of the calls come from golang.org/x/sys (generate.go), as plain
// text that is read when a profile is compiled.
//
// What it does not do: SCMP_ACT_NOTIFY and listenerPath, big-endian machines,
// and machines other than amd64, arm64, arm, 386 and riscv64.
package seccomp
