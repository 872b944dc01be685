// Package kernel knows the files of a Linux kernel for x86-64: its image, its
// modules and its configuration. It needs neither a network nor rights, and no
// program of the system but zstd(1) for what is compressed that way.
//
// # Words
//
// An image is a bzImage, by a distribution's name a vmlinuz: a boot header
// (Documentation/arch/x86/boot.rst), and the kernel proper, compressed. A
// release is what uname -r shows; the modules of a kernel carry it, too, in
// their vermagic.
//
//	image, err := kernel.Open("arch/x86/boot/bzImage")
//	modules, err := kernel.OpenModules("/lib/modules/"+image.Release, image.Release)
//	list, absent, err := modules.Load([]string{"overlay", "veth", "nft_*"})
//	for _, m := range list {
//		// init_module(2) with m.Data
//	}
//
//	config, err := kernel.ReadConfig(".config")
//	for _, row := range kernel.Check(config) {
//		if !row.OK {
//			fmt.Println(row.Option, row.State, row.For, row.Remedy)
//		}
//	}
//
// It does not look at the host's running kernel: container/host probes that.
// A configuration only tells what was built; whether it works is asked by the
// lab's conformance cases.
package kernel
