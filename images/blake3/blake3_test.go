package blake3

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"testing"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func TestVectors(t *testing.T) {
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cases := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		var n int
		var want string
		if _, err := fmt.Sscanf(s.Text(), "%d %s", &n, &want); err != nil {
			continue
		}
		cases++
		if got := Sum(pattern(n)); hex.EncodeToString(got[:]) != want {
			t.Errorf("Sum of %d bytes is %x, want %s", n, got, want)
		}
	}
	if cases < 22 {
		t.Errorf("only %d cases", cases)
	}
}

// plain is the specification's tree in its own words, without any of what
// makes the package fast.
func plain(p []byte, counter uint64, flags uint32) Value {
	if len(p) <= chunkSize {
		return chunk(p, counter, flags)
	}
	left := chunkSize
	for 2*left < len(p) {
		left *= 2
	}
	return pair(&[2]Value{plain(p[:left], counter, 0), plain(p[left:], counter+uint64(left/chunkSize), 0)}, flags)
}

func TestLengths(t *testing.T) {
	all := pattern(70*BlockSize + 7777)
	for _, n := range []int{0, 1, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049, 3 << 10, 15 << 10, 16<<10 - 1, 16 << 10, 16<<10 + 1,
		17 << 10, 31<<10 + 5, 33 << 10, 48<<10 + 1, 255 << 10, BlockSize - 1, BlockSize, BlockSize + 1, BlockSize + 1024,
		2 * BlockSize, 3*BlockSize + 1, 5*BlockSize - 1, 64 * BlockSize, 65*BlockSize + 1, len(all)} {
		want := digest(plain(all[:n], 0, root))
		if got := Sum(all[:n]); got != want {
			t.Errorf("Sum of %d bytes is %x, want %x", n, got, want)
		}
	}
}

// More blocks than one level of Join takes.
func TestJoin(t *testing.T) {
	values := make([]Value, 70000)
	for i := range values {
		values[i] = Value{uint32(i), 1: 7}
	}
	var tree func(v []Value, flags uint32) Value
	tree = func(v []Value, flags uint32) Value {
		if len(v) == 1 {
			return v[0]
		}
		left := 1
		for 2*left < len(v) {
			left *= 2
		}
		return pair(&[2]Value{tree(v[:left], 0), tree(v[left:], 0)}, flags)
	}
	for _, n := range []int{2, 3, 5, 17, 255, 256, 257, 258, 511, 512, 513, 1000, 65536, 65537, 70000} {
		if got, want := Join(values[:n]), digest(tree(values[:n], root)); got != want {
			t.Errorf("Join of %d is %x, want %x", n, got, want)
		}
	}
}

// Whatever this processor has must agree with the plain code, also for
// counters that need more than 32 bits (files over 4 TiB).
func TestLanes(t *testing.T) {
	in := (*[lanes * chunkSize]byte)(pattern(lanes * chunkSize))
	for _, counter := range []uint64{0, 256, 1<<32 - 256, 1 << 32, 1<<50 + 512} {
		var got, want [lanes]Value
		hashChunks(&got, in, counter)
		chunksGeneric(&want, in, counter)
		if got != want {
			t.Errorf("chunks from %d are %x, want %x", counter, got, want)
		}
	}
	var got, want [lanes]Value
	pairs := make([]Value, 2*lanes)
	for i := range pairs {
		pairs[i] = chunk([]byte{byte(i)}, 0, 0)
	}
	hashParents(&got, pairs)
	parentsGeneric(&want, pairs)
	if got != want {
		t.Errorf("parents are %x, want %x", got, want)
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{100, 1 << 10, 4 << 10, 16 << 10, BlockSize, 16 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := bytes.Repeat([]byte{7}, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				Sum(p)
			}
		})
	}
}
