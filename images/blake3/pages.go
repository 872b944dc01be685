package blake3

// PageSize is the length of what Pages digests.
const PageSize = 4 * chunkSize

// Pages returns the digest of each page of content, as Sum would. One page has
// too few chunks to fill the lanes of a processor; 16 pages side by side do.
func Pages(out [][Size]byte, content []byte) {
	for len(content) >= lanes*PageSize {
		pages16((*[lanes][Size]byte)(out), (*[lanes * PageSize]byte)(content))
		out, content = out[lanes:], content[lanes*PageSize:]
	}
	if len(content) == 0 {
		return
	}
	var padded [lanes * PageSize]byte
	var sums [lanes][Size]byte
	n := copy(padded[:], content) / PageSize
	pages16(&sums, &padded)
	copy(out[:n], sums[:])
}

// pages16 digests 16 pages. The tree of one is of two levels:
//
//	chunk 0  chunk 1  chunk 2  chunk 3
//	    parent            parent
//	              root
func pages16(out *[lanes][Size]byte, in *[lanes * PageSize]byte) {
	var column [lanes]Value
	var chunks [lanes * 4]Value // those of a page side by side
	for c := range 4 {
		pageChunks(&column, in, c)
		for p := range column {
			chunks[4*p+c] = column[p]
		}
	}
	var parents [lanes * 2]Value
	hashParents((*[lanes]Value)(parents[:]), chunks[:2*lanes])
	hashParents((*[lanes]Value)(parents[lanes:]), chunks[2*lanes:])
	hashRoots(&column, &parents)
	for p := range out {
		out[p] = digest(column[p])
	}
}

// pageChunksGeneric hashes chunk c of each page, one after the other.
func pageChunksGeneric(out *[lanes]Value, in *[lanes * PageSize]byte, c int) {
	for p := range out {
		at := p*PageSize + c*chunkSize
		out[p] = chunk(in[at:at+chunkSize], uint64(c), 0)
	}
}

// rootsGeneric hashes pairs that are the whole of something.
func rootsGeneric(out *[lanes]Value, in *[2 * lanes]Value) {
	for i := range out {
		out[i] = pair((*[2]Value)(in[2*i:]), root)
	}
}
