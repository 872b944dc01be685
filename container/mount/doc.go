// Package mount puts a container's root filesystem together, outside of the
// container: in the monitor's private mount namespace.
//
// # Words
//
// A root is the directory that becomes the container's `/`: an overlay of a
// lower directory that is never written, and a private layer that holds all
// that the container changes. A mount is one line of the bundle's mounts; its
// place says who makes it: outside (by us, before the container exists; for
// CRIU such a mount is external) or inside (by the container's init, because
// it shows one of the container's own namespaces: proc, devpts, mqueue).
//
//	root := mount.Root{Lower: "/", Layer: dir + "/layer", Target: dir + "/rootfs"}
//	err := root.Apply()
//	f, err := os.OpenFile(root.Target, unix.O_PATH|unix.O_DIRECTORY, 0)
//	for _, m := range mounts {
//		err = m.Apply(f)
//	}
//
// Every target is resolved inside the root (package safepath), and mounted onto
// by descriptor, so that no symlink in the root filesystem can lead a mount
// astray (CVE-2021-30465).
//
// The package does not enter namespaces, and undoes nothing: the mounts go
// away with the namespace they were made in.
package mount
