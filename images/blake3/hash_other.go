//go:build !amd64

package blake3

func hashChunks(out *[lanes]Value, in *[lanes * chunkSize]byte, counter uint64) {
	chunksGeneric(out, in, counter)
}

func hashParents(out *[lanes]Value, in []Value) {
	parentsGeneric(out, in)
}
