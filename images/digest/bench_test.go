package digest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func BenchmarkTree(b *testing.B) {
	dir := b.TempDir()
	if d := os.Getenv("CRUCIBLE_BENCH_DIR"); d != "" {
		dir = d
	}
	buf := make([]byte, 1<<20)
	f, err := os.Create(filepath.Join(dir, "pages-1.img"))
	if err != nil {
		b.Fatal(err)
	}
	const size = 1 << 30
	for range size >> 20 {
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	f.Close()
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("1GiB/%d", workers), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if _, err := Tree(b.Context(), dir, Options{Workers: workers}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	os.Remove(f.Name())
	for i := range 60 {
		os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), buf[:i*100], 0o600)
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("60files/%d", workers), func(b *testing.B) {
			for b.Loop() {
				if _, err := Tree(b.Context(), dir, Options{Workers: workers}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
