package criufile

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// BenchmarkDecode: the two files that grow with a process's memory.
func BenchmarkDecode(b *testing.B) {
	const count = 16384
	pages := `{"magic":"PAGEMAP","entries":[{"pages_id":1}` + strings.Repeat(`,{"vaddr":"0x7f1122334000","compat_nr_pages":0,"flags":4,"nr_pages":1}`, count) + `]}`
	vma := `{"start":"0x7f1122334000","end":"0x7f1122335000","pgoff":0,"shmid":0,"prot":3,"flags":34,"status":513,"fd":-1}`
	mm := `{"magic":"MM","entries":[{"mm_start_code":0,"vmas":[` + strings.Repeat(vma+",", count) + vma + `]}]}`
	for name, text := range map[string]string{"pagemap": pages, "mm": mm} {
		b.Run(fmt.Sprintf("%s of %d", name, count), func(b *testing.B) {
			file := encode(b, []byte(text))
			b.SetBytes(int64(len(file)))
			b.ReportAllocs()
			for b.Loop() {
				f, err := NewFile(bytes.NewReader(file), int64(len(file)), "x.img")
				if err == nil {
					err = f.Decode(b.Context(), io.Discard, DecodeOptions{})
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
