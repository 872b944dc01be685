package kernel

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	const version = "6.12.1-test (me@here) #1 SMP Thu Jan 1 00:00:00 UTC 2026"
	dir := t.TempDir()
	write(t, dir, map[string]string{"arch/x86/boot/bzImage": string(fakeImage(version, []byte("payload")))})
	file := filepath.Join(dir, "arch/x86/boot/bzImage")
	for _, path := range []string{file, dir} {
		img, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if img.Path != file || img.Release != "6.12.1-test" || img.Version != version || img.Protocol != 0x20f {
			t.Errorf("Open(%s) = %+v", path, img)
		}
		if data, err := os.ReadFile(file); err != nil {
			t.Fatal(err)
		} else if got := string(data[img.payload.offset:][:img.payload.length]); got != "payload" {
			t.Errorf("payload %q", got)
		}
	}
}

// change gives a good image with something overwritten.
func change(at int, text string) []byte {
	data := fakeImage("6.12.1 x", []byte("payload"))
	copy(data[at:], text)
	return data
}

func TestOpenRefuses(t *testing.T) {
	good := fakeImage("6.12.1 x", make([]byte, 5000))
	pe := func(machine uint16, start string) []byte {
		data := make([]byte, 0x100)
		copy(data, start)
		binary.LittleEndian.PutUint32(data[0x3c:], 0x80)
		copy(data[0x80:], "PE\x00\x00")
		binary.LittleEndian.PutUint16(data[0x84:], machine)
		return data
	}
	arm64 := append(make([]byte, 56), "ARM\x64"+strings.Repeat("\x00", 100)...)
	copy(arm64, "MZ")
	elfFile := func(machine uint16, data byte) []byte {
		head := make([]byte, 64)
		copy(head, "\x7fELF\x02"+string(data))
		order := binary.ByteOrder(binary.LittleEndian)
		if data == 2 {
			order = binary.BigEndian
		}
		order.PutUint16(head[18:], machine)
		return head
	}
	for _, test := range []struct {
		name string
		data []byte
		want string // in the error
		hint string // in the hint
		arch string // of an OtherArchitecture
	}{
		{"empty", nil, "empty", "bzImage", ""},
		{"text", []byte("#!/bin/sh\n"), "no boot header", "bzImage", ""},
		{"header cut off", good[:0x210], "no boot header", "bzImage", ""},
		{"cut off", good[:len(good)-100], "cut off: 6476 of 6576 bytes", "bzImage", ""},
		{"setup cut off", good[:0x300], "cut off", "bzImage", ""},
		{"no boot flag", change(bootFlag, "\x00\x00"), "no boot header", "bzImage", ""},
		{"old protocol", change(protocol, "\x0b\x02"), "older than 2.12", "bzImage", ""},
		{"no version", change(kernelVersion, "\x00\x00"), "no kernel version", "bzImage", ""},
		{"version outside", change(kernelVersion, "\xff\xff"), "no kernel version", "bzImage", ""},
		{"version endless", change(0x300, strings.Repeat("x", 3*sector-0x300)), "no kernel version", "bzImage", ""},
		{"payload outside", change(payloadOffset, "\xff\xff\xff\xff"), "outside of the file", "bzImage", ""},
		{"32 bits", change(xLoadFlags, "\x00\x00"), "32-bit", "x86-64", "32-bit x86"},
		{"arm64 Image", arm64, "arm64", "x86-64", "arm64"},
		{"arm64 zboot", pe(0xaa64, "MZ\x00\x00zimg"), "zboot", "x86-64", "arm64 (an EFI zboot image)"},
		{"riscv EFI", pe(0x5064, "MZ"), "riscv", "x86-64", "riscv (an EFI program)"},
		{"x86-64 EFI program", pe(0x8664, "MZ"), "an EFI program", "bzImage", ""},
		{"PE header outside", append([]byte("MZ"), make([]byte, 58)...), "an EFI program", "bzImage", ""},
		{"PE header far away", change2(pe(0xaa64, "MZ"), 0x3c, "\xff\xff\xff\xff"), "an EFI program", "bzImage", ""},
		{"vmlinux", elfFile(62, 1), "vmlinux", "arch/x86/boot of the same tree", ""},
		{"arm64 vmlinux", elfFile(183, 1), "aarch64", "x86-64", "aarch64 (an ELF file)"},
		{"s390 vmlinux", elfFile(22, 2), "s390", "x86-64", "s390 (an ELF file)"},
		{"package", []byte("!<arch>\ndebian-binary   "), "a Debian package", "bzImage", ""},
		{"gzip", []byte("\x1f\x8b\x08"), "gzip", "bzImage", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(path, test.data, 0o644); err != nil {
				t.Fatal(err)
			}
			img, err := Open(path)
			if err == nil {
				t.Fatalf("Open = %+v, want an error", img)
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %q, want %q and the path in it", err, test.want)
			}
			if hint := err.(interface{ Hint() string }).Hint(); !strings.Contains(hint, test.hint) {
				t.Errorf("hint %q, want %q in it", hint, test.hint)
			}
			var other *OtherArchitecture
			if errors.As(err, &other) != (test.arch != "") || other != nil && other.Architecture != test.arch {
				t.Errorf("%#v, want architecture %q", err, test.arch)
			}
		})
	}
}

func change2(data []byte, at int, text string) []byte {
	copy(data[at:], text)
	return data
}

func TestOpenWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "nothing"), dir} {
		if _, err := Open(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%s): %v", path, err)
		}
	}
	var not *NotImage
	if _, err := Open("/dev/null"); !errors.As(err, &not) || !strings.Contains(err.Error(), "regular") {
		t.Errorf("Open(/dev/null): %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fakeImage("6.12.1 x", []byte("payload")))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := parse("fuzz", data, int64(len(data)))
		if (img == nil) == (err == nil) {
			t.Fatal(img, err)
		}
		if img != nil {
			if end := img.payload.offset + img.payload.length; end > int64(len(data)) || img.Release == "" {
				t.Fatalf("%+v of %d bytes", img, len(data))
			}
		}
	})
}
