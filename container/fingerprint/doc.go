// Package fingerprint writes down everything that the kernel shows about a
// frozen container, in a form in which two of them can be compared: before a
// checkpoint and after a restore, the same program must have the same.
//
// # Words
//
// A fact is a key and a value: "process/7/fd/3/pos" is "4096". A fingerprint is
// a sorted list of facts. Values are the kernel's own text where that says the
// same in every life of a container; what does not is put into a canonical form:
//
//   - a process or thread is known by its number inside the container;
//   - a socket, a pipe, an open file is known by who holds it, the process and
//     the descriptor with the lowest numbers: "socket/7:3";
//   - a namespace is "own", "host" or that of another process;
//   - memory is a digest of the pages that hold something: a page that was never
//     touched and one full of zeros are the same to a program. Mappings that the
//     kernel keeps apart for reasons of its own are taken together.
//
// A field that this package does not know, because the kernel is newer, is a
// fact like any other. What cannot be read is one too: "unreadable: why".
//
// Differences that must be, and nothing else, are in one table with their
// reasons: see [Declared]. Some facts of it are not even written down, such as
// counters.
//
//	before, err := fingerprint.Take(ctx, fingerprint.Subject{Init: pid, Group: group, NetNS: ns})
//	...
//	after, err := fingerprint.Take(ctx, ...)
//	report := fingerprint.Compare(before, after, fingerprint.Circumstances{Elapsed: pause})
//	for _, d := range report.Differences {
//		fmt.Println(d)
//	}
//
// # What it does not see
//
// The registers of a task, its alternate signal stack, interval timers and the
// few attributes that only the process itself can ask for: the container is not
// touched, so only what the kernel shows to others is here. Nor does it read
// files, unless they are mapped. The digest is SHA-256, which processors have
// instructions for; this package may not know of the one that images use.
//
// On cgroup v1 a sleeping task is frozen inside its sleep, and interrupted only
// when CRIU has hold of it: the kernel then writes what is left of the sleep into
// the program's memory (nanosleep(2), rem), whose digest differs. On v2 the freeze
// itself interrupts, before the fingerprint.
//
// The container must be frozen: nothing here freezes it. Taking a fingerprint
// changes nothing about it, with one exception, which is said at
// [Subject].Restored.
package fingerprint
