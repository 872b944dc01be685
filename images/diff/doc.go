// Package diff compares two images: what of a container's processes, of what they
// have open, where they live and what is in their memory is not the same.
//
//	d, err := diff.Compare(ctx, older, newer, diff.Options{})
//	for _, x := range d.Differences {
//		fmt.Println(x.Section, x.Process, x.Change, x.What, x.Fields)
//	}
//
// # Words
//
// A difference is about one thing, such as a descriptor, which one image has and
// the other has not, or both have with other fields. Things are the same one by
// what the container knows them by: processes by their pid, threads by their tid,
// descriptors by their number, mounts by the directory, namespaces by their kind,
// mappings by what is mapped, and where. That the two images are of one container
// is usual, and not needed.
//
// # What is no difference
//
// What names a thing on the host or in CRIU's files, and not for the processes:
// pids of the host, inodes of pipes, sockets and namespaces, ids of mounts and
// files, devices of filesystems, paths of cgroups, the host's end of a network
// link. And what moves by itself: the clocks of a time namespace, the times of
// directories, devices and pipes, flags of a task that only the kernel uses.
// Mappings next to each other that differ in nothing are one.
//
// Memory that was not dumped is zeros, or what the mapped file has: a page that
// one image has, full of zeros, is the same as one that the other does not have,
// in anonymous memory. In a mapped file it is another one, whatever it holds.
//
// One page of a thread can differ though the container stood still all the time:
// the kernel writes there which processor the thread is on (rseq(2)), and CRIU has
// threads run code of its own.
//
// # What it does not do
//
// It compares what the images say. Files that the container has not changed are
// in no image.
package diff
