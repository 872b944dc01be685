// Package podman makes images of the checkpoint archives of Podman and CRI-O
// (and so Kubernetes).
//
//	if podman.Is(stream.First()) {
//		made, err := podman.Import(ctx, store, stream, podman.ImportOptions{})
//	}
//
// # The archive
//
//	config.dump            what Podman or CRI-O knows of the container
//	spec.dump              its OCI configuration
//	checkpoint/            CRIU's files
//	rootfs-diff.tar        what it changed in its root filesystem,
//	deleted.files          and what it deleted there, a list in JSON
//	devshm-checkpoint.tar  the content of /dev/shm
//	network.status, stats-dump, ctr.log, ...
//
// # What is different
//
// Their runtimes, runc and crun, meet CRIU otherwise than we do, and CRIU's
// files show it. So these are changed on the way, and nothing else is:
//
//   - They let CRIU save the network namespace; we start CRIU in it. The ids of
//     the namespace become those of CRIU's own (ids-*.img, files.img). What
//     was configured in it is not in the archive: it comes back with a loopback.
//   - They keep files of theirs in the container (/etc/hosts, ...), which are
//     left out, as is what is in /dev but not of every container: both are
//     made again. What we make from the bundle's mounts is marked external
//     (mountpoints-*.img).
//   - Standard output and error are pipes to them; they become our FIFOs
//     (files.img, fdinfo-*.img).
//
// The root filesystem itself is in neither: a directory with the same files is
// needed, as for every image. Podman has it as a container image.
package podman
