package blake3

import (
	"fmt"
	"testing"
)

func TestPages(t *testing.T) {
	for _, n := range []int{0, 1, 2, 15, 16, 17, 33} {
		content := pattern(n * PageSize)
		got := make([][Size]byte, n)
		Pages(got, content)
		for p := range got {
			if want := Sum(content[p*PageSize : (p+1)*PageSize]); got[p] != want {
				t.Errorf("page %d of %d: %x, want %x", p, n, got[p], want)
			}
		}
	}
}

// Every kind of processor must come to the same.
func TestPagesLanes(t *testing.T) {
	in := (*[lanes * PageSize]byte)(pattern(lanes * PageSize))
	for c := range 4 {
		var got, want [lanes]Value
		pageChunks(&got, in, c)
		pageChunksGeneric(&want, in, c)
		if got != want {
			t.Errorf("chunks %d: %x, want %x", c, got, want)
		}
	}
	var pairs [2 * lanes]Value
	for i := range pairs {
		pairs[i][i%8] = uint32(i)
	}
	var got, want [lanes]Value
	hashRoots(&got, &pairs)
	rootsGeneric(&want, &pairs)
	if got != want {
		t.Errorf("roots: %x, want %x", got, want)
	}
}

func BenchmarkPages(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			content := pattern(n * PageSize)
			out := make([][Size]byte, n)
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				Pages(out, content)
			}
		})
	}
}
