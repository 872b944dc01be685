package blake3

import (
	"testing"

	"golang.org/x/sys/cpu"

	"crucible/container/testenv"
)

func hasAVX2() (bool, error)   { return cpu.X86.HasAVX2, nil }
func hasAVX512() (bool, error) { return cpu.X86.HasAVX512F, nil }

// The narrower code must work on processors that have the wider one, too.
func TestLanesAVX2(t *testing.T) {
	if width() < 8 {
		testenv.Lacks(t, "AVX2", hasAVX2)
	}
	in := (*[lanes * chunkSize]byte)(pattern(lanes * chunkSize))
	for _, counter := range []uint64{0, 256, 1<<32 - 256, 1 << 32} {
		var got, want [lanes]Value
		hash8(&got[0], &in[0], chunkSize, chunkSize/64, counter, 1, 0, chunkStart, chunkEnd)
		hash8(&got[8], &in[8*chunkSize], chunkSize, chunkSize/64, counter+8, 1, 0, chunkStart, chunkEnd)
		chunksGeneric(&want, in, counter)
		if got != want {
			t.Errorf("chunks from %d are %x, want %x", counter, got, want)
		}
	}
}

func BenchmarkLanes(b *testing.B) {
	in := (*[lanes * chunkSize]byte)(pattern(lanes * chunkSize))
	var out [lanes]Value
	b.Run("avx512", func(b *testing.B) {
		if width() < 16 {
			testenv.Lacks(b, "AVX-512", hasAVX512)
		}
		b.SetBytes(lanes * chunkSize)
		for b.Loop() {
			hash16(&out[0], &in[0], chunkSize, chunkSize/64, 0, 1, 0, chunkStart, chunkEnd)
		}
	})
	b.Run("avx2", func(b *testing.B) {
		if width() < 8 {
			testenv.Lacks(b, "AVX2", hasAVX2)
		}
		b.SetBytes(lanes * chunkSize)
		for b.Loop() {
			hash8(&out[0], &in[0], chunkSize, chunkSize/64, 0, 1, 0, chunkStart, chunkEnd)
			hash8(&out[8], &in[8*chunkSize], chunkSize, chunkSize/64, 8, 1, 0, chunkStart, chunkEnd)
		}
	})
	b.Run("go", func(b *testing.B) {
		b.SetBytes(lanes * chunkSize)
		for b.Loop() {
			chunksGeneric(&out, in, 0)
		}
	})
}
