//go:build !amd64

package blake3

func hashChunks(out *[lanes]Value, in *[lanes * chunkSize]byte, counter uint64) {
	chunksGeneric(out, in, counter)
}

func hashParents(out *[lanes]Value, in []Value) {
	parentsGeneric(out, in)
}

func pageChunks(out *[lanes]Value, in *[lanes * PageSize]byte, c int) { pageChunksGeneric(out, in, c) }

func hashRoots(out *[lanes]Value, in *[2 * lanes]Value) { rootsGeneric(out, in) }
