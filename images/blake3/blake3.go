package blake3

import (
	"encoding/binary"
	"unsafe"
)

const (
	// Size of a digest in bytes.
	Size = 32
	// BlockSize is the length of a block: 2^8 of BLAKE3's chunks, so that a
	// block is a whole subtree, and small enough to stay in a processor's
	// second-level cache between being read and being hashed.
	BlockSize = 256 << 10

	chunkSize   = 1024
	blockChunks = BlockSize / chunkSize
	lanes       = 16
)

// The flags of BLAKE3's compression function.
const (
	chunkStart = 1 << iota
	chunkEnd
	parent
	root
)

// Value is the hash of a part of the content: BLAKE3's chaining value.
type Value [8]uint32

// Sum returns the digest of content.
func Sum(content []byte) [Size]byte {
	if len(content) <= chunkSize {
		return digest(chunk(content, 0, root))
	}
	var room values
	if len(content) <= BlockSize {
		return digest(pair(room.reduce(room.fill(content, 0)), root))
	}
	all := make([]Value, 0, len(content)/BlockSize+1)
	for n := uint64(0); len(content) > 0; n++ {
		b := content[:min(len(content), BlockSize)]
		all = append(all, Block(b, n))
		content = content[len(b):]
	}
	return Join(all)
}

// Block returns the value of the nth block of content that is longer than one
// block. Only the last block may be shorter than BlockSize; none is empty.
func Block(block []byte, n uint64) Value {
	if len(block) <= chunkSize {
		return chunk(block, n*blockChunks, 0)
	}
	var room values
	return pair(room.reduce(room.fill(block, n*blockChunks)), 0)
}

// Join returns the digest of content from the values of its blocks, of which
// there are at least two.
func Join(blocks []Value) [Size]byte {
	var room values
	// Subtrees of 256 blocks, then of 256 of those, as long as there are more.
	rest := append([]Value(nil), blocks...)
	for len(rest) > blockChunks {
		var next []Value
		for at := 0; at < len(rest); at += blockChunks {
			n := copy(room[:blockChunks], rest[at:])
			if n == 1 {
				next = append(next, room[0])
			} else {
				next = append(next, pair(room.reduce(n), 0))
			}
		}
		rest = next
	}
	return digest(pair(room.reduce(copy(room[:], rest)), root))
}

// values are the values of a block's chunks, with room behind them for lanes
// that are computed and not used.
type values [blockChunks + lanes]Value

// fill hashes the chunks of block, which has more than one, from number
// counter on, and returns how many there are.
func (v *values) fill(block []byte, counter uint64) int {
	n := 0
	for len(block) >= lanes*chunkSize {
		hashChunks((*[lanes]Value)(v[n:]), (*[lanes * chunkSize]byte)(block), counter+uint64(n))
		block = block[lanes*chunkSize:]
		n += lanes
	}
	if whole := len(block) / chunkSize; whole > 1 {
		var padded [lanes * chunkSize]byte
		copy(padded[:], block[:whole*chunkSize])
		hashChunks((*[lanes]Value)(v[n:]), &padded, counter+uint64(n))
		block = block[whole*chunkSize:]
		n += whole
	}
	// At most one whole chunk and a part of one are left.
	for len(block) > 0 {
		c := block[:min(len(block), chunkSize)]
		v[n] = chunk(c, counter+uint64(n), 0)
		block = block[len(c):]
		n++
	}
	return n
}

// reduce joins neighbours, level by level, until two of n values are left. An
// odd one at the end moves up as it is, which makes the same tree as the
// specification's rule of complete left subtrees.
func (v *values) reduce(n int) *[2]Value {
	for n > 2 {
		odd := v[n-1] // the unused lanes below may overwrite it
		for at := 0; at < n/2; at += lanes {
			hashParents((*[lanes]Value)(v[at:]), v[2*at:])
		}
		if n%2 == 1 {
			v[n/2] = odd
		}
		n = (n + 1) / 2
	}
	return (*[2]Value)(v[:2])
}

// chunk returns the value of a chunk, which may be shorter than chunkSize.
func chunk(p []byte, counter uint64, flags uint32) Value {
	cv := iv()
	start := uint32(chunkStart)
	for len(p) > 64 {
		cv = compress(&cv, words((*[64]byte)(p)), counter, 64, start)
		p, start = p[64:], 0
	}
	var last [64]byte
	copy(last[:], p)
	return compress(&cv, words(&last), counter, uint32(len(p)), start|chunkEnd|flags)
}

// pair returns the value of the parent of two values.
func pair(v *[2]Value, flags uint32) Value {
	var m [16]uint32
	copy(m[:8], v[0][:])
	copy(m[8:], v[1][:])
	cv := iv()
	return compress(&cv, &m, 0, 64, parent|flags)
}

func digest(v Value) (d [Size]byte) {
	for i, w := range v {
		binary.LittleEndian.PutUint32(d[4*i:], w)
	}
	return d
}

func words(p *[64]byte) *[16]uint32 {
	var m [16]uint32
	for i := range m {
		m[i] = binary.LittleEndian.Uint32(p[4*i:])
	}
	return &m
}

// bytesOf is where the first of v begins: two values are a parent's block.
func bytesOf(v []Value) *byte { return (*byte)(unsafe.Pointer(&v[0])) }
