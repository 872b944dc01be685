// Package blake3 is the BLAKE3 hash function, cut for files that are digested
// by several processors at once or while they are still being written: content
// is a row of blocks, blocks can be hashed in any order, and joining their
// values gives the digest that b3sum prints.
//
//	if len(content) <= blake3.BlockSize {
//		return blake3.Sum(content)
//	}
//	var values []blake3.Value
//	for n, block := range blocks(content) { // all BlockSize long but the last
//		values = append(values, blake3.Block(block, n))
//	}
//	return blake3.Join(values)
//
// Why not a library: the two that exist ask the processor what it can do when
// the program starts. CPUID leaves a virtual machine each time, 8 µs where this
// was measured, 240-350 µs in all; that is paid by each start of crucible,
// also as a container's first process. Here three CPUIDs are done by the first
// one that hashes. Why not SHA-256 of the standard library: see package images.
//
// It has no keyed mode, no key derivation and no output longer than 32 bytes.
package blake3
