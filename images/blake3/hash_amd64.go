package blake3

import "sync"

// hash16 and hash8 hash 16 or 8 inputs at once (AVX-512F, AVX2). Each input is
// `blocks` times 64 bytes, the next begins `stride` bytes after it. The
// counter is the first input's; each further input's is `step` (0 or 1) more,
// which must not carry into the upper 32 bits. The first 64 bytes have the
// flags `first`, the last 64 `last`, all `flags`.
//
//go:noescape
func hash16(out *Value, in *byte, stride, blocks, counter, step uint64, flags, first, last uint32)

//go:noescape
func hash8(out *Value, in *byte, stride, blocks, counter, step uint64, flags, first, last uint32)

func cpuid(leaf uint32) (ebx, ecx uint32)
func xgetbv() uint32

// width is how many lanes the processor has: 16, 8, or 1.
var width = sync.OnceValue(func() int {
	const osxsave, avx = 1 << 27, 1 << 28 // leaf 1, ECX
	const avx2, avx512f = 1 << 5, 1 << 16 // leaf 7, EBX
	const ymm, zmm = 0x06, 0xe6           // XCR0: the kernel saves these registers
	if _, ecx := cpuid(1); ecx&(osxsave|avx) != osxsave|avx {
		return 1
	}
	// Every processor with AVX has leaf 7.
	ebx, _ := cpuid(7)
	switch state := xgetbv(); {
	case ebx&avx512f != 0 && state&zmm == zmm:
		return 16
	case ebx&avx2 != 0 && state&ymm == ymm:
		return 8
	}
	return 1
})

// hashChunks hashes 16 whole chunks. A block begins at a multiple of 256
// chunks, so no counter carries within 16.
func hashChunks(out *[lanes]Value, in *[lanes * chunkSize]byte, counter uint64) {
	switch width() {
	case 16:
		hash16(&out[0], &in[0], chunkSize, chunkSize/64, counter, 1, 0, chunkStart, chunkEnd)
	case 8:
		hash8(&out[0], &in[0], chunkSize, chunkSize/64, counter, 1, 0, chunkStart, chunkEnd)
		hash8(&out[8], &in[8*chunkSize], chunkSize, chunkSize/64, counter+8, 1, 0, chunkStart, chunkEnd)
	default:
		chunksGeneric(out, in, counter)
	}
}

// hashParents hashes pairs of in, as many as there are, up to 16. What it
// leaves in the rest of out has no meaning. out may be where in is: each call
// below has read its pairs before it writes, and writes no further than the
// pairs that were read.
func hashParents(out *[lanes]Value, in []Value) {
	if w := width(); w == 1 || len(in) < 2*w {
		parentsGeneric(out, in)
	} else if w == 16 {
		hash16(&out[0], bytesOf(in), 64, 1, 0, 0, parent, 0, 0)
	} else {
		hash8(&out[0], bytesOf(in), 64, 1, 0, 0, parent, 0, 0)
		if len(in) >= 4*w {
			hash8(&out[8], bytesOf(in[16:]), 64, 1, 0, 0, parent, 0, 0)
		}
	}
}

// pageChunks hashes chunk c of each page.
func pageChunks(out *[lanes]Value, in *[lanes * PageSize]byte, c int) {
	at := c * chunkSize
	switch width() {
	case 16:
		hash16(&out[0], &in[at], PageSize, chunkSize/64, uint64(c), 0, 0, chunkStart, chunkEnd)
	case 8:
		hash8(&out[0], &in[at], PageSize, chunkSize/64, uint64(c), 0, 0, chunkStart, chunkEnd)
		hash8(&out[8], &in[8*PageSize+at], PageSize, chunkSize/64, uint64(c), 0, 0, chunkStart, chunkEnd)
	default:
		pageChunksGeneric(out, in, c)
	}
}

// hashRoots hashes pairs that are the whole of something.
func hashRoots(out *[lanes]Value, in *[2 * lanes]Value) {
	switch width() {
	case 16:
		hash16(&out[0], bytesOf(in[:]), 64, 1, 0, 0, parent|root, 0, 0)
	case 8:
		hash8(&out[0], bytesOf(in[:]), 64, 1, 0, 0, parent|root, 0, 0)
		hash8(&out[8], bytesOf(in[16:]), 64, 1, 0, 0, parent|root, 0, 0)
	default:
		rootsGeneric(out, in)
	}
}
