// Package memory reads the memory that CRIU wrote to an image: which pages of
// each process are there, in which image of the chain, and what they hold.
//
// # Words
//
// A space is what pages have an address in: the memory of a process, or an
// object of memory that processes share, whose addresses count from 0. A run
// is a number of pages next to each other that lie next to each other in one
// file, too. A layer is one image of the chain, 0 the image itself, 1 its
// parent, and so on.
//
//	m, err := memory.Open(image)
//	defer m.Close()
//	for _, pid := range m.Pids() {
//		space, err := m.Process(pid)
//		for _, run := range space.Runs() {
//			fmt.Printf("%x: %d pages, from %s\n", run.Addr, run.Pages, m.Image(run.Layer).Ref())
//		}
//		n, err := space.ReadAt(buf, 0x7ffc_0000_0000)
//	}
//
// # CRIU's files
//
// pagemap-PID.img and pagemap-shmem-ID.img begin with the number N of a file
// pages-N.img and go on with entries: an address, a number of pages, and
// whether they follow in that file (PE_PRESENT) or are to be taken from the
// image before (PE_PARENT). A page that no entry names was not dumped: of
// anonymous memory it holds zeros, of a file what the file has there.
// (criu/pagemap.c, criu/include/pagemap.h, images/pagemap.proto.)
//
// # What it does not do
//
// It knows no mappings: what a range of addresses is for, mm-PID.img says.
// Bytes that were never written, or written to a file by the kernel, are in
// no image, and ReadAt says so ([Absent]) instead of making them up.
package memory
