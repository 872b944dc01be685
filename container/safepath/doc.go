// Package safepath opens paths inside a container's root directory without
// ever leaving it, whatever symbolic links the root contains and whoever
// changes them meanwhile (CVE-2021-30465, CVE-2019-16884).
//
// Its words: a root is a directory held by a descriptor; a path is always
// read as a path inside the root, so that "/etc", "etc" and "../../etc" are
// the same and a symbolic link to "/run" means the root's own /run; a mount
// point is a directory or an empty file that something is mounted onto.
//
// A name is resolved once, to a descriptor, and from then on only the
// descriptor is used:
//
//	root, err := os.Open("/var/lib/crucible/containers/web/rootfs")
//	...
//	target, err := safepath.OpenDir(root, "/var/lib/data", 0o755)
//	if err != nil {
//		return err
//	}
//	defer target.Close()
//	// The new mount API takes the descriptor itself (MOVE_MOUNT_T_EMPTY_PATH),
//	// mount(2) takes its name in /proc:
//	err = unix.Mount(source, safepath.Path(target), "", unix.MS_BIND, "")
//
// A descriptor that was opened before something was mounted onto it shows
// what is below the mount: open the path again to see the mount.
//
// Why not a library: cyphar/filepath-securejoin's pathrs-lite (v0.7.0) takes
// 36 µs for a mount point that is there, this 4 µs, and a container has a dozen
// of them; it refuses a link to what is still to be made (/var/run, before there
// is a /run), and makes no files. An [os.Root] refuses absolute links, where a
// container's root is to be what they start from.
//
// What it does not do: it mounts nothing, and it does not stop a path from
// crossing a mount point or from being renamed after it was opened.
package safepath
