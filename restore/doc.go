// Package restore starts a container from an image, in fresh namespaces and a
// fresh cgroup.
//
// # Words
//
// The container comes back under its own name, or as a clone under another one
// (and with another address) while the original, or other clones, live. The
// work is done by the new container's monitor, a process of its own, so that
// the restored tasks are the monitor's children as if it had started them:
//
//	command: From            monitor: Job
//	open the image      ──▶  claim the container; cgroup, network namespace
//	                         CRIU is started in both; link (quiet)
//	                         root filesystem, contents of the kept mounts
//	                         CRIU restores; digests are checked beside it,
//	                         before the first task runs (lazily: pages after)
//	                         link on, parked frames delivered
//	print the result    ◀──  serve, until the container's end
//
//	r, err := restore.From(ctx, image, restore.Options{Root: root, CRIU: path})
//	fmt.Println(r.Name, r.Address)
//
// An image that builds on others is restored from all of them; one of a pre-dump
// holds memory only, and is refused.
//
// A failed restore leaves nothing behind, and a stopped container of that name
// with what it had, but defined by the image. The package does not move images
// between hosts.
package restore
