// Package host finds out what this kernel, and the rights that we have on it,
// allow. It answers the question "will a checkpoint and a restore work here,
// and what will they cost?" before a container is frozen.
//
// # Words
//
// A probe does the thing in question, in a namespace or on a process of its
// own, and sees whether the kernel does it. It never looks at a version: a
// distribution's 5.14 has features of 6.5, and a 6.18 can be built without
// any of them.
//
// A row is a probe's answer: good, missing or unknown. Unknown means that we
// could not tell (no permission, a sandbox's filter, a time-out) and says why;
// it is never used for "the kernel said no".
//
//	for _, row := range host.Probe(ctx, host.Options{Root: "/var/lib/crucible"}) {
//		if row.Required && row.State == host.Missing {
//			fmt.Println(row.Name, row.Detail, "->", row.Remedy)
//		}
//	}
//
// Everything that a probe makes is gone when it returns: namespaces end with
// the thread that made them, processes are reaped, directories and cgroups
// removed. No setting of the host is changed.
//
// CRIU has checks of its own, which checkpoint/criu runs; this package knows
// nothing of CRIU and starts no program.
package host
