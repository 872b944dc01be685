package pack

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"crucible/images/blake3"
)

// sealed gives bytes the digest at their end that makes an index of them.
func sealed(b []byte) []byte {
	if len(b) < blake3.Size {
		return b
	}
	body := b[:len(b)-blake3.Size]
	all := blake3.Sum(body)
	return append(body[:len(body):len(body)], all[:]...)
}

// FuzzPack reads a pack of foreign bytes by the name that its table has.
func FuzzPack(f *testing.F) {
	d := Dir(f.TempDir())
	for _, letters := range []string{"abc", "AB"} {
		_, added, err := d.Add(f.Context(), contents(pages(letters)), Options{})
		if err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(d.Path(added.Pack))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	d = Dir(f.TempDir())
	f.Fuzz(func(t *testing.T, b []byte) {
		var id ID
		if len(b) >= footLen {
			if at := binary.LittleEndian.Uint64(b[len(b)-footLen:]); at < uint64(len(b)) {
				full := blake3.Sum(b[at:])
				id = ID(full[:sumSize])
			}
		}
		if err := os.WriteFile(d.Path(id), b, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(d.Path(id))
		p, err := d.open(id, true)
		var damaged *Error
		if err != nil {
			if !errors.As(err, &damaged) {
				t.Errorf("open: %v", err)
			}
			return
		}
		defer p.Close()
		x, known := &Index{}, map[ID]int32{}
		for n := range p.pages {
			x.addFrom(known, id, uint32(n))
		}
		r, err := d.Open(x)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for at := int64(0); at < x.Size; at += frameSize {
			if _, err := r.ReadAt(make([]byte, min(frameSize, x.Size-at)), at); err != nil && !errors.As(err, &damaged) {
				t.Errorf("read at %d: %v", at, err)
			}
		}
	})
}
