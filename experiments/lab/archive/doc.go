// Package archive gets kernels and versions of CRIU from Debian's archive, and
// keeps them.
//
// # Words
//
// The archive is what the machine's own apt sources call Debian: the same
// mirror, the same keys, but every suite that the mirror has, from oldoldstable
// to experimental. Its index is what we keep of the suites' lists. The cache is
// a directory, the user's own. An entry is a kernel or a CRIU that the archive
// or the cache has.
//
//	a, err := archive.Open("")
//	k, err := a.Kernel(ctx, "6.12")             // the newest 6.12.x
//	image, err := kernel.Open(k.Image)
//	modules, err := kernel.OpenModules(k.Modules, image.Release)
//	c, err := a.CRIU(ctx, "4.1.1")              // c.Dir is laid over a root
//
// apt does the fetching and checks every signature, with a private
// configuration that needs no rights and changes nothing of the machine's. A
// kernel is stored with its modules decompressed and without the drivers of
// real hardware; CRIU as it is, with exactly the libraries it loads.
//
// # The cache
//
//	lock                       held by who changes something
//	apt/                       apt's configuration and lists, index.json
//	kernel/PACKAGE-VERSION/    vmlinuz, config, modules/, contents.json
//	criu/PACKAGE-VERSION/      usr/sbin/criu, lib64/, usr/lib/, contents.json
//
// A directory appears whole or not at all. Each use compares every byte with
// the digests in contents.json; what is damaged is fetched again. What was
// interrupted is gone on with the next time. Removing any of it costs the time
// to fetch it, and nothing else. It grows by 80 MB for a kernel, 13 MB for a
// CRIU, and 100 MB for apt's lists.
//
// The index costs seconds, and is renewed when it is a day old or does not have
// what is asked for. Without a network, or on a machine without apt, what is in
// the cache can be used all the same.
//
// It does not look into what it gets (package kernel does), and knows no other
// distribution's archive and no other architecture than amd64.
package archive
