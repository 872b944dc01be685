package blake3

import "math/bits"

func iv() Value {
	return Value{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
}

// compress is the compression function of the specification, section 2.2, cut
// to its first eight words.
func compress(cv *Value, m *[16]uint32, counter uint64, length, flags uint32) Value {
	s0, s1, s2, s3, s4, s5, s6, s7 := cv[0], cv[1], cv[2], cv[3], cv[4], cv[5], cv[6], cv[7]
	s8, s9, s10, s11 := uint32(0x6a09e667), uint32(0xbb67ae85), uint32(0x3c6ef372), uint32(0xa54ff53a)
	s12, s13, s14, s15 := uint32(counter), uint32(counter>>32), length, flags
	w := *m
	for round := 0; ; round++ {
		s0, s4, s8, s12 = mix(s0, s4, s8, s12, w[0], w[1])
		s1, s5, s9, s13 = mix(s1, s5, s9, s13, w[2], w[3])
		s2, s6, s10, s14 = mix(s2, s6, s10, s14, w[4], w[5])
		s3, s7, s11, s15 = mix(s3, s7, s11, s15, w[6], w[7])
		s0, s5, s10, s15 = mix(s0, s5, s10, s15, w[8], w[9])
		s1, s6, s11, s12 = mix(s1, s6, s11, s12, w[10], w[11])
		s2, s7, s8, s13 = mix(s2, s7, s8, s13, w[12], w[13])
		s3, s4, s9, s14 = mix(s3, s4, s9, s14, w[14], w[15])
		if round == 6 {
			break
		}
		// The words change their places between rounds: table 2.
		w = [16]uint32{w[2], w[6], w[3], w[10], w[7], w[0], w[4], w[13], w[1], w[11], w[12], w[5], w[9], w[14], w[15], w[8]}
	}
	return Value{s0 ^ s8, s1 ^ s9, s2 ^ s10, s3 ^ s11, s4 ^ s12, s5 ^ s13, s6 ^ s14, s7 ^ s15}
}

// mix is the specification's G.
func mix(a, b, c, d, x, y uint32) (uint32, uint32, uint32, uint32) {
	a += b + x
	d = bits.RotateLeft32(d^a, -16)
	c += d
	b = bits.RotateLeft32(b^c, -12)
	a += b + y
	d = bits.RotateLeft32(d^a, -8)
	c += d
	b = bits.RotateLeft32(b^c, -7)
	return a, b, c, d
}

// chunksGeneric hashes 16 whole chunks one after the other.
func chunksGeneric(out *[lanes]Value, in *[lanes * chunkSize]byte, counter uint64) {
	for i := range out {
		out[i] = chunk(in[i*chunkSize:(i+1)*chunkSize], counter+uint64(i), 0)
	}
}

// parentsGeneric hashes pairs of in, as many as there are, up to 16.
func parentsGeneric(out *[lanes]Value, in []Value) {
	for i := range min(lanes, len(in)/2) {
		out[i] = pair((*[2]Value)(in[2*i:]), 0)
	}
}
