package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeImage is the smallest bzImage that Open takes, around a payload.
func fakeImage(version string, payload []byte) []byte {
	const sects = 2
	start := (sects + 1) * sector
	body := make([]byte, 32, 32+len(payload)+16) // something before the payload
	body = append(body, payload...)
	for len(body)%16 != 0 {
		body = append(body, 0)
	}
	data := make([]byte, start, start+len(body))
	le := binary.LittleEndian
	data[setupSects] = sects
	le.PutUint16(data[bootFlag:], 0xaa55)
	copy(data[magic:], "HdrS")
	le.PutUint16(data[protocol:], 0x20f)
	le.PutUint16(data[kernelVersion:], 0x100)
	copy(data[0x300:], version+"\x00")
	le.PutUint16(data[xLoadFlags:], xlfKernel64)
	le.PutUint32(data[sysSize:], uint32(len(body)/16))
	le.PutUint32(data[payloadOffset:], 32)
	le.PutUint32(data[payloadLength:], uint32(len(payload)))
	return append(data, body...)
}

// fakeModule is an ELF object with nothing but a .modinfo section.
func fakeModule(t *testing.T, info ...string) []byte {
	t.Helper()
	modinfo := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	var b bytes.Buffer
	write := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	head := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: uint64(64 + len(modinfo) + len(names)), Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	copy(head.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	write(head)
	b.Write(modinfo)
	b.Write(names)
	write(elf.Section64{})
	write(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(modinfo)), Addralign: 1})
	write(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(modinfo)), Size: uint64(len(names)), Addralign: 1})
	return b.Bytes()
}

// write makes files below a directory, and what leads to them.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
