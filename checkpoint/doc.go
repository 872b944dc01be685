// Package checkpoint turns a running container into an image.
//
// # Words
//
// Everything before the freeze is preparation, everything after the thaw can
// wait, and what lies between is the frozen time: the package is arranged so
// that as little as possible happens there.
//
//	preflight, CRIU's own start, draft      the container runs
//	└─ CRIU's pre-dump event: park, freeze  ─┐
//	   CRIU dumps; beside it we read /proc   │ frozen
//	   and save the file trees               │
//	└─ CRIU's post-dump event               ─┘
//	thaw, digests, commit by rename         the container runs (leave running)
//
// The trees are saved once more at post-dump where CRIU has linked a deleted
// file back into one.
//
// When the container is to be stopped, digests and commit come before CRIU's
// answer to post-dump: CRIU kills the tasks only once the image is whole, and
// lets them go on when it is not.
//
//	r, err := checkpoint.Dump(ctx, c, checkpoint.Options{Store: store, CRIU: criu})
//	fmt.Println(r.Ref, r.Frozen)
//
// # Incremental images
//
// With a Parent only memory that has changed since that image is written, and a
// PreDump writes nothing but memory, while the container runs:
//
//	checkpoint -R web               web@1, all of it; the marks are cleared
//	checkpoint -R --parent web@1    web@2, what has changed; they are cleared again
//	checkpoint --parent web@2       web@3, what has changed; the container stops
//
// The kernel's marks (soft-dirty) are cleared by every checkpoint that leaves the
// container running, where the kernel has them: that is how a chain begins, and
// there is nothing to ask for. It costs little: for 256 MiB, on an emulated
// processor with Linux 6.12, 14 ms of the frozen time, of which the writing to a
// tmpfs takes 2,900; and afterwards 2.5 µs for the first write to each page.
// The rules that keep a chain right are in memory.go.
//
// The package knows nothing of how an image is restored.
package checkpoint
