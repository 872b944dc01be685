package criufile

import (
	"bytes"
	"os"
	"runtime"
	"testing"
)

// FuzzDecode: no bytes make it panic, or take much more memory than they are,
// and what it decodes comes back.
func FuzzDecode(f *testing.F) {
	for _, path := range files(f) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(fileOf(f, "28 01 08 01 28 02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := decodeBytes(t, b)
		if err != nil {
			return
		}
		if got := encode(t, []byte(text)); !bytes.Equal(got, b) {
			t.Errorf("other bytes come back: %x, want %x of\n%s", got, b, text)
		}
		file, err := NewFile(bytes.NewReader(b), int64(len(b)), "x.img")
		if err == nil {
			_, _ = LoadFile[struct {
				Data []byte `criu:",extra"`
			}](file)
		}
	})
}

// FuzzEncode: what it accepts can be decoded, and is the same then, unless
// somebody put an entry's bytes together by @wire.
func FuzzEncode(f *testing.F) {
	for _, path := range files(f) {
		f.Add(decode(f, path, DecodeOptions{}))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var out bytes.Buffer
		if err := Encode(t.Context(), &out, bytes.NewReader(text)); err != nil || bytes.Contains(text, []byte("@wire")) {
			return
		}
		again, err := decodeBytes(t, out.Bytes())
		if err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v in\n%s", err, text)
		}
		if got := encode(t, []byte(again)); !bytes.Equal(got, out.Bytes()) {
			t.Errorf("other bytes come back: %x, want %x", got, out.Bytes())
		}
	})
}

// A file of some bytes that says it has gigabytes gets no gigabytes.
func TestNoGreatAllocation(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, text := range []string{
		"\x19\x43\x56\x54\x09\x37\x45\x56\x04\x00\x00\x00\x10\xff\xff\xff",         // an entry
		"\x19\x43\x56\x54\x26\x40\x26\x56\x06\x00\x00\x00\x10\xff\xff\xff\xff\x0f", // a payload
		"\x19\x43\x56\x54\x30\x30\x27\x50\xff\xff\xff\xff",                         // a length
	} {
		if out, err := decodeBytes(t, []byte(text)); err == nil {
			t.Errorf("%x was decoded to %s", text, out)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}
