// Package pack keeps memory pages once, however many files hold them, and
// compressed: what is in a file of pages then is an index, which says where each
// page is.
//
// # Words
//
// A page is 4096 bytes, whatever the machine's pages are. A pack is a file of
// pages that is written once and has its digest for a name; the packs of a store
// lie in one directory. 64 pages make a frame, which is compressed by itself. An
// index is a file's list of runs: so many pages of that pack from this one on, or
// so many pages of zeros, which are nowhere.
//
//	dir := pack.Dir("/var/lib/crucible/images/.packs")
//	indexes, result, err := dir.Add(ctx, []pack.Content{{f, size}}, pack.Options{})
//	b := indexes[0].Encode() // as good as the file, as long as the packs are there
//
//	x, err := pack.Decode(b)
//	r, err := dir.Open(x)
//	n, err := r.ReadAt(p, off)
//
// Add writes only pages that no pack has. They are found by their digest, so it
// needs no help of the kernel, and no image to compare with; two pages are taken
// for the same if the first 16 bytes of their BLAKE3 digests are. Who replaces a
// file by its index reads it back first.
//
// # A pack
//
//	offset  size
//	0       16    "CRU-pack", and the version as 8 bytes, little-endian like all
//	16            the frames, one behind the other: zstd, or the pages as they
//	              are where that is not shorter
//	t       8f    table: of each frame the length and the CRC-32C, 4 bytes each
//	        16n   the digest of each page
//	        4n    the pages' numbers, sorted by their digests
//	        24    t (8 bytes), the number n of pages (8), "CRU-tabl"
//
// The digest of everything from t on is the pack's name, so that no bit of the
// file can change unseen.
//
// # Memory
//
// What is in memory is a few ten bytes for each page of what is added, or of the
// one pack that is being looked at; never the pages of all packs.
//
// # What it does not do
//
// It knows no images, and no locks. While pages are added nobody may remove a
// pack, or the pages that were found are gone before the index is written.
package pack
