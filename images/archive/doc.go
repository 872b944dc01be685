// Package archive carries images: an image, and what it builds on, in one file.
//
//	x, err := archive.Export(ctx, image, w, archive.ExportOptions{})
//	...
//	made, err := archive.Import(ctx, store, r, archive.ImportOptions{Name: "copy"})
//
// # The file
//
// A tar file, compressed with zstd, that the programs of those names read:
//
//	web@3.sig                a signature of its manifest, if it is signed
//	web/3/manifest.pb        the image: its manifest first,
//	web/3/bundle.json        then its files, in the manifest's order
//	web/3/criu/parent        -> ../../2/criu, the only link
//	web/3/criu/pages-1.img
//	...
//	web/2/manifest.pb        what it builds on, and so on
//
// It is made of frames that can each be read without the others, of 4 MiB of
// the tar file at most, and ends with a table of them: zstd's seekable format
// (contrib/seekable_format of its source). A file of more than 256 KiB begins
// a frame. The same image gives the same file: the times are the image's, and
// owner and mode are those of a store's files.
//
// # Trust
//
// Every byte is accounted for by the first manifest, which has the digests of
// its files and, through its parent's, those of the others. Export compares
// what it reads with them, Import what it writes. Import believes nothing
// else: an entry that no manifest names, another size, a link or a device, a
// manifest that is not what the image before builds on, anything behind the
// end, and an image that the disk cannot hold are refused, and nothing is left.
//
// # Numbers
//
// An image finds what it builds on by its number beside it, and knows it by the
// digest of its manifest, which has to stay as it is. So those that others build
// on keep their numbers, also under another name; they may be there already.
//
// It does not carry the root filesystem that is below what the container has
// changed: that is not in an image.
package archive
