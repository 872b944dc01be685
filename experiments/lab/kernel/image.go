package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Image is a kernel that the lab can boot: a bzImage for x86-64, which is
// what a distribution calls vmlinuz.
type Image struct {
	Path string
	// Release as uname -r shows it, "6.12.113+deb13-cloud-amd64".
	Release string
	// Version is the whole of what /proc/version shows behind "Linux version",
	// but for the compiler.
	Version string
	// Protocol of the boot header, 0x20f for 2.15.
	Protocol int

	payload section // the compressed vmlinux
}

// section of a file, in bytes.
type section struct{ offset, length int64 }

// Open reads the header of the kernel image in a file. Of a directory in
// which a kernel was built it takes arch/x86/boot/bzImage. Errors that tell
// what a file is instead: *NotImage, *OtherArchitecture.
func Open(path string) (*Image, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("kernel image: %w", err)
	}
	if info.IsDir() {
		path = filepath.Join(path, "arch/x86/boot/bzImage")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("kernel image: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("kernel image: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &NotImage{Path: path, What: "not a regular file"}
	}
	// The real-mode part is at most 64 sectors and the boot sector.
	head := make([]byte, 65*sector)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("kernel image %s: %w", path, err)
	}
	return parse(path, head[:n], info.Size())
}

const sector = 512

// Offsets in the header, Documentation/arch/x86/boot.rst.
const (
	setupSects    = 0x1f1 // u8, 0 means 4
	sysSize       = 0x1f4 // u32, of the protected-mode part, in units of 16 bytes
	bootFlag      = 0x1fe // u16, 0xaa55
	magic         = 0x202 // "HdrS"
	protocol      = 0x206 // u16
	kernelVersion = 0x20e // u16, offset of a string, less 0x200
	xLoadFlags    = 0x236 // u16, from protocol 2.12 on
	payloadOffset = 0x248 // u32, from the start of the protected-mode part
	payloadLength = 0x24c // u32
	headerEnd     = 0x268

	xlfKernel64 = 1 << 0 // has a 64-bit entry point
)

func parse(path string, head []byte, size int64) (*Image, error) {
	le := binary.LittleEndian
	if len(head) < headerEnd || le.Uint16(head[bootFlag:]) != 0xaa55 || string(head[magic:magic+4]) != "HdrS" {
		return nil, foreign(path, head)
	}
	img := &Image{Path: path, Protocol: int(le.Uint16(head[protocol:]))}
	// Older than 3.8; checkpoint and restore came with 3.11.
	if img.Protocol < 0x20c {
		return nil, &NotImage{Path: path, What: fmt.Sprintf("boot protocol %d.%02d: older than 2.12, which Linux 3.8 brought", img.Protocol>>8, img.Protocol&0xff)}
	}
	if le.Uint16(head[xLoadFlags:])&xlfKernel64 == 0 {
		return nil, &OtherArchitecture{Path: path, Architecture: "32-bit x86"}
	}
	sects := int64(head[setupSects])
	if sects == 0 {
		sects = 4
	}
	start := (sects + 1) * sector
	end := start + int64(le.Uint32(head[sysSize:]))*16
	if size < end {
		return nil, &NotImage{Path: path, What: fmt.Sprintf("cut off: %d of %d bytes", size, end)}
	}
	img.payload = section{start + int64(le.Uint32(head[payloadOffset:])), int64(le.Uint32(head[payloadLength:]))}
	if img.payload.offset+img.payload.length > size {
		return nil, &NotImage{Path: path, What: "its header places the kernel outside of the file"}
	}
	at := int64(le.Uint16(head[kernelVersion:])) + 0x200
	if at == 0x200 || at >= start || at >= int64(len(head)) {
		return nil, &NotImage{Path: path, What: "no kernel version in its header"}
	}
	text, _, found := bytes.Cut(head[at:min(start, int64(len(head)))], []byte{0})
	fields := strings.Fields(string(text))
	if !found || len(fields) == 0 {
		return nil, &NotImage{Path: path, What: "no kernel version in its header"}
	}
	img.Version, img.Release = string(text), fields[0]
	return img, nil
}
