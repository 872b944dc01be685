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
package conformance
