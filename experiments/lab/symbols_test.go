package lab

import (
	"bytes"
	"strings"
	"testing"
)

const someSymbols = `0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000000 T startup
ffffffff81000000 t __pfx_startup
ffffffff81000100 t helper
ffffffff81000100 W alias
ffffffff81000180 t helper.cold
ffffffff81000200 D data_is_no_function
ffffffff81000300 T last
ffffffffc0001000 t in_module.isra.0	[veth]
`

func TestSymbols(t *testing.T) {
	s, err := ReadSymbols(strings.NewReader(someSymbols))
	if err != nil {
		t.Fatal(err)
	}
	packed, err := PackSymbols(strings.NewReader(someSymbols))
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := UnpackSymbols(packed)
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[uint64]string{
		0x1000: Unnamed, 0xffffffff80ffffff: Unnamed,
		0xffffffff81000000: "startup", 0xffffffff810000ff: "startup", // global, no underscore
		0xffffffff81000100: "alias", 0xffffffff81000190: "helper", 0xffffffff81000210: "helper",
		0xffffffff81000300: "last", 0xffffffff81010300: "last", 0xffffffff81010301: Unnamed,
		0xffffffffc0000fff: Unnamed, 0xffffffffc0001001: "in_module",
	} {
		if got := s.Function(address); got != want {
			t.Errorf("%x: %s, want %s", address, got, want)
		}
		if got := unpacked.Function(address); got != want {
			t.Errorf("unpacked, %x: %s, want %s", address, got, want)
		}
	}
	if got := Symbols(nil).Function(1 << 63); got != Unnamed {
		t.Errorf("without symbols: %s", got)
	}
}

func TestBadSymbols(t *testing.T) {
	for _, text := range []string{"x\n", "ffffffff81000000 TT name\n", "here T name\n"} {
		if s, err := ReadSymbols(strings.NewReader(text)); err == nil {
			t.Errorf("%q: %v", text, s)
		}
	}
	if _, err := UnpackSymbols([]byte("no gzip")); err == nil {
		t.Error("unpacked what is not packed")
	}
}

func FuzzReadSymbols(f *testing.F) {
	f.Add([]byte(someSymbols))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ReadSymbols(bytes.NewReader(text))
		if err != nil {
			return
		}
		for i := range s {
			if i > 0 && s[i-1].address >= s[i].address {
				t.Errorf("not in order: %x, %x", s[i-1].address, s[i].address)
			}
			if got := s.Function(s[i].address); got != s[i].name {
				t.Errorf("%x: %s, want %s", s[i].address, got, s[i].name)
			}
		}
	})
}
