// Package workload is the conformance cases: the questions that a kernel and a
// CRIU are asked, and the programs that answer them.
//
// # Words
//
// A case asks one thing that checkpoint and restore stand on. Its program runs
// in a container, sets some state up, says that it is ready, waits, and in the
// end checks itself. Its plot is what is done with the container meanwhile:
// mostly one checkpoint and one restore. Some have a part outside, such as a peer
// on the bridge.
//
//	Run                                    program, in the container
//	create, launch                    ──▶  set up
//	wait for the line in the log      ◀──  "ready"
//	checkpoint.Dump, restore.From
//	SIGUSR1                           ──▶  check
//	wait for the exit status          ◀──  0, or 1 and "differs: ..."
//
// The verdict is pass, fail with the step at which it happened and the engine's
// explained cause, or skip: kernel, CRIU or machine lack a feature, which is
// named, or the case is known to lose what it asks about everywhere.
//
//	found, err := criu.Find("")
//	cases := workload.Cases()
//	features, err := workload.Probe(ctx, found, cases)
//	for _, c := range cases {
//		r := workload.Run(ctx, c, workload.Options{Root: root, CRIU: found, Features: features, Dir: "results"})
//		fmt.Println(c.Name, r.Verdict, r.Reason)
//	}
//
// No other program is needed than this one: the container's root filesystem holds
// nothing but a view of our own executable, which becomes the program by
// [MaybeRun]. Children of a program are forked without an execve (see fork), so
// that a case costs little under emulation.
//
// # To add a case
//
// Put a line into the table of its subject, with a question that can be answered
// by yes, and a program: a function that sets up what could get lost and returns
// the function that looks whether it was. The state must not be what a fresh
// process has anyway. What a kernel may lack goes into Needs, where a probe finds
// it out before, or the program returns lacks(...).
//
// # What it does not do
//
// It measures only what the engine's two calls take. It boots no kernel: package
// lab does, and runs this in the machine.
package workload
