// Package conformance asks the conformance cases (experiments/workload) of
// kernels: each target, a kernel with a CRIU and a cgroup layout, boots in a
// machine of its own (experiments/lab), and what its guest answers becomes a
// report.
//
// # Words
//
// A target is what is under test. An outcome is what one case came to on one
// target: pass, fail, or skip, where the kernel or CRIU lacks a feature that the
// case is about. A target that could not be tested at all has a fault in place
// of outcomes; it says nothing about its kernel.
//
//	report, err := conformance.Run(ctx, targets, conformance.Options{QEMU: qemu, Cases: cases})
//	os.Exit(report.ExitCode())
//
// A machine does many cases one after the other. A kernel that panics, or falls
// silent, in the middle of one fails that case; the cases that were still to
// come are asked in a new machine.
//
// # Counts
//
// With Options.Count the instructions are counted that a case's checkpoints and
// restores take: those of all that runs in the guest meanwhile, from a moment
// before to a moment after, when what they left to be done is done. Such a case
// has a machine of its own, because what ran before changes what it costs, by a
// half: the case is run once to warm up (that one costs twice as much), and then
// some rounds are counted. Where a case has several checkpoints, a round's number
// is their sum.
//
// The numbers are the same in each run of the same thing. They are not to the
// last digit what a kernel costs: one round differs from another by a percent,
// because the allocators are in another state and processes meet at other times,
// and so does a kernel with any change in it. Nearly all of that is in a few dozen
// functions, so that a change of the others stands out however small it is: see
// Difference.
package conformance
