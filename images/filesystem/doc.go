// Package filesystem writes what a container changed in its filesystems to an
// archive, and brings it back: the upper directory of its overlay, and what
// its tmpfs mounts hold.
//
//	sum, err := filesystem.Save(ctx, upper, w, filesystem.SaveOptions{Kind: imagepb.ArchiveKind_ARCHIVE_KIND_OVERLAY_UPPER})
//	...
//	_, err = filesystem.Load(ctx, r, freshUpper)     // before it is mounted
//	changes, err := filesystem.Changes(ctx, r, "/")  // "A /etc/new", "D /etc/motd"
//
// # What is kept
//
// Regular files with their holes, directories, symbolic and hard links, FIFOs,
// sockets, devices; owner, group, mode with its three upper bits, extended
// attributes of all classes (capabilities and access control lists among
// them), the time of modification in nanoseconds. The directory itself is the
// first entry. Not kept: times of access and change, inode numbers, inode
// flags (chattr(1)), and files that were deleted while open, which CRIU keeps.
//
// Save reads one filesystem: of a mount point in the tree it keeps the place,
// a directory or an empty file. Nobody may change the tree meanwhile; a
// checkpoint calls it while the container is frozen.
//
// An overlay's own marks are kept as they are: whiteouts (devices 0:0), opaque
// directories, origins. An upper directory whose files have only their
// attributes there and their content below (metacopy), or which refer to the
// lower directories by path (redirect_dir), is an error: mount the overlay
// with "redirect_dir=off,metacopy=off".
//
// # The archive
//
// A tar file in the PAX format (pax(1)), uncompressed, entries in lexical
// order, each directory before what is in it. Extended attributes are
// SCHILY.xattr.NAME records, as other tar programs write them. What tar has no
// words for has records of our own:
//
//	CRUCIBLE.socket=1      an empty file that is to be a socket
//	CRUCIBLE.sparse=SIZE   a file of SIZE bytes with holes; the entry's content
//	                       is a row of parts: offset and length (8 bytes each,
//	                       little-endian), then as many bytes
//	CRUCIBLE.xattr.HEX     an attribute whose name has a "=", in hexadecimal
//	CRUCIBLE.end=COUNT     in a global header, which is the last: how many entries
//	                       came before. Tar itself does not notice when it is cut
//
// # Hostile archives
//
// Load trusts nothing: every path is opened beneath the directory without
// following symbolic links or crossing mounts (openat2(2)), nothing that
// exists is overwritten, and what it does not know is an error that names it.
// It does make devices and set-user-ID files, as they are part of a container:
// the directory must not be within reach of anybody but the container.
package filesystem
