package fingerprint

import "encoding/binary"

// The kernel writes the number of the processor on which a thread runs into its
// memory, rseq(2): struct rseq, which the C library has beside what else it keeps
// for the thread. Only the thread itself, or a tracer, can ask where. But the
// kernel shows where the thread's robust list is, get_robust_list(2), and the two
// are within a page of each other (glibc, struct pthread: rseq_area and
// robust_head). So what looks like a struct rseq there is taken for one:
//
//	0   cpu_id_start   the same number
//	4   cpu_id         twice
//	8   rseq_cs        where a critical section is described, or 0
//	16  flags          0
//	20  node_id
//	24  mm_cid
//
// and what the kernel writes into it counts as 0. An area that a program has
// registered elsewhere differs, if it comes to run on another processor.
const (
	rseqSize   = 32
	rseqNear   = 4096
	mostNodes  = 1024 // MAX_NUMNODES of the largest configurations
	mostOfCPUs = 8192 // NR_CPUS
)

// maskRseq does that in a piece of memory that begins at an address.
func maskRseq(piece []byte, at, head uint64) {
	if head == 0 || head+rseqNear < at || at+uint64(len(piece)) < head-min(head, rseqNear) {
		return
	}
	from := max(at, head-min(head, rseqNear))
	from += -from % rseqSize
	for ; from+rseqSize <= min(at+uint64(len(piece)), head+rseqNear); from += rseqSize {
		b := piece[from-at:][:rseqSize]
		word := func(i int) uint32 { return binary.NativeEndian.Uint32(b[i:]) }
		if word(0) == word(4) && word(0) < mostOfCPUs && word(16) == 0 && word(20) < mostNodes && word(24) < mostOfCPUs {
			clear(b[0:8])
			clear(b[20:28])
		}
	}
}
