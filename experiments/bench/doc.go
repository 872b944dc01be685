// Command bench compares crucible with runc, LXC and the bare CRIU, on this
// machine, as a user meets them: whole commands, from start to exit.
//
// Its words:
//
//   - system: one of the four that make containers.
//   - section: one question, for example "how long is a checkpoint".
//   - arm: one side of a comparison; it takes one sample of everything a
//     section asks for.
//   - round: one sample of each arm, one after the other, so that what the
//     machine does meanwhile falls on all of them alike. The first rounds
//     warm up and are dropped.
//   - series: all samples of one quantity of one system.
//
// The usual way to run it, as root:
//
//	scripts/bench                      # everything, ten minutes and more
//	scripts/bench --quick              # fewer rounds, under three minutes
//	scripts/bench --only cycle,memory
//	scripts/bench --json results.json --markdown table.md
//	scripts/bench --from results.json --markdown -  # measure nothing
//
// A number is the median of a series, with its quartiles. A ratio is that of
// two medians, crucible's first, with a 95 % interval of 2000 bootstrap
// samples: both series drawn again with replacement, independently.
//
// What is the same for all systems: the CRIU, the programs, the root
// filesystem (the host's own), the namespaces (pid, mnt, uts, ipc, net), the
// disk. What is not is in notes(), and is printed.
//
// The programs in the containers are sleep and true of the host, or this
// program itself, see workload.go.
//
// It does not measure what a program inside feels apart from the pauses, or
// moves between hosts, and says nothing about whether the state that came back
// is right: the tests do.
package main
