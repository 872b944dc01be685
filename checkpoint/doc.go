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
// The package knows nothing of how an image is restored.
package checkpoint
