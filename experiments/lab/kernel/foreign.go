package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"strings"
)

// NotImage says that a file is no kernel image, and what it is instead.
type NotImage struct {
	Path string
	What string
	vm   bool // an ELF vmlinux
}

func (e *NotImage) Error() string {
	return fmt.Sprintf("kernel image %s: not a bzImage: %s", e.Path, e.What)
}

// Hint says where the right file is.
func (e *NotImage) Hint() string {
	if e.vm {
		return "the lab boots a bzImage, which is in arch/x86/boot of the same tree"
	}
	return "give a bzImage or vmlinuz for x86-64, or the directory of a kernel build"
}

// OtherArchitecture says that a kernel is for another kind of processor.
type OtherArchitecture struct {
	Path         string
	Architecture string
}

func (e *OtherArchitecture) Error() string {
	return fmt.Sprintf("kernel image %s: for %s", e.Path, e.Architecture)
}

// Hint says which kernels the lab boots.
func (e *OtherArchitecture) Hint() string { return "the lab boots kernels for x86-64" }

// foreign says what a file that is no bzImage is, by its first bytes.
func foreign(path string, head []byte) error {
	at := func(offset int, text string) bool {
		return len(head) >= offset+len(text) && string(head[offset:offset+len(text)]) == text
	}
	not := func(what string) error { return &NotImage{Path: path, What: what} }
	switch {
	case len(head) == 0:
		return not("empty")
	case at(0, elf.ELFMAG):
		return foreignELF(path, head)
	// Documentation/arch/arm64/booting.rst and .../riscv/boot-image-header.rst
	case at(56, "ARM\x64"):
		return &OtherArchitecture{Path: path, Architecture: "arm64"}
	case at(56, "RSC\x05"):
		return &OtherArchitecture{Path: path, Architecture: "riscv"}
	// arch/arm/boot/compressed/head.S
	case at(0x24, "\x18\x28\x6f\x01"):
		return &OtherArchitecture{Path: path, Architecture: "arm"}
	case at(0, "MZ"):
		return foreignPE(path, head)
	case at(0, "\x1f\x8b"):
		return not("compressed with gzip (an Image.gz of another architecture?)")
	case at(0, "!<arch>\ndebian"):
		return not("a Debian package")
	case at(257, "ustar"):
		return not("a tar archive")
	case at(0, "070701"):
		return not("an initramfs")
	}
	return not("no boot header of Linux (HdrS)")
}

func foreignELF(path string, head []byte) error {
	machine := elf.EM_NONE
	if len(head) >= 20 {
		order := binary.ByteOrder(binary.LittleEndian)
		if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
			order = binary.BigEndian
		}
		machine = elf.Machine(order.Uint16(head[18:]))
	}
	if machine == elf.EM_X86_64 {
		return &NotImage{Path: path, What: "an ELF file, perhaps a vmlinux", vm: true}
	}
	name := strings.ToLower(strings.TrimPrefix(machine.String(), "EM_"))
	return &OtherArchitecture{Path: path, Architecture: name + " (an ELF file)"}
}

// foreignPE tells what an EFI program is for: a kernel that unpacks itself,
// drivers/firmware/efi/libstub/zboot-header.S, or a unified kernel image.
func foreignPE(path string, head []byte) error {
	what := "an EFI program"
	if len(head) >= 8 && string(head[4:8]) == "zimg" {
		what = "an EFI zboot image"
	}
	if len(head) >= 0x40 {
		pe := int(binary.LittleEndian.Uint32(head[0x3c:]))
		if pe >= 0 && pe+6 <= len(head) && bytes.Equal(head[pe:pe+4], []byte("PE\x00\x00")) {
			machine := binary.LittleEndian.Uint16(head[pe+4:])
			if name := peMachine(machine); name != "" {
				return &OtherArchitecture{Path: path, Architecture: name + " (" + what + ")"}
			}
		}
	}
	return &NotImage{Path: path, What: what}
}

// peMachine names the machines of Linux's EFI images, include/linux/pe.h;
// that of x86-64 is "".
func peMachine(machine uint16) string {
	switch machine {
	case 0x014c:
		return "32-bit x86"
	case 0x01c0, 0x01c2, 0x01c4:
		return "arm"
	case 0xaa64:
		return "arm64"
	case 0x5032, 0x5064:
		return "riscv"
	case 0x6232, 0x6264:
		return "loongarch"
	}
	return ""
}
