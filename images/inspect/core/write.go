package core

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"crucible/images/inspect/memory"
)

// Sizes of the headers of 64 bits (elf.h), and of what we use.
const (
	headerSize  = 64
	segmentSize = 56
	sectionSize = 64

	typeCore     = 4
	typeLoad     = 1
	typeNote     = 4
	manySegments = 0xffff // PN_XNUM: the number is in the first section
)

// File is what a core file is written to.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// segment is a program header.
type segment struct {
	typ, flags               uint32
	offset, addr, file, size uint64
	parts                    []memory.Part
}

// Write writes the core file to one that is empty. What holds zeros stays a hole.
func (p *Process) Write(ctx context.Context, f File) error {
	segments, err := p.segments()
	if err != nil {
		return err
	}
	notes := p.notes()
	segments = append([]segment{{typ: typeNote, file: uint64(len(notes))}}, segments...)
	head := p.layout(segments)
	end := segments[len(segments)-1].offset + segments[len(segments)-1].file
	if err := f.Truncate(int64(max(end, segments[0].offset+segments[0].file))); err != nil {
		return fmt.Errorf("write core file: %w", err)
	}
	if _, err := f.WriteAt(append(head, notes...), 0); err != nil {
		return fmt.Errorf("write core file: %w", err)
	}
	buf := make([]byte, 64<<10)
	for _, s := range segments {
		for _, part := range s.parts {
			if part.State != memory.Dumped {
				continue
			}
			if err := copyPart(ctx, f, int64(s.offset+part.Addr-s.addr), part, buf); err != nil {
				return err
			}
		}
	}
	return nil
}

func copyPart(ctx context.Context, f File, offset int64, p memory.Part, buf []byte) error {
	for at := uint64(0); at < p.Size; {
		b := buf[:min(uint64(len(buf)), p.Size-at)]
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := p.ReadAt(b, int64(at)); err != nil {
			return err
		}
		if b[0] != 0 || !bytes.Equal(b[1:], b[:len(b)-1]) { // else a hole has them, too
			if _, err := f.WriteAt(b, offset+int64(at)); err != nil {
				return fmt.Errorf("write core file: %w", err)
			}
		}
		at += uint64(len(b))
	}
	return nil
}

// smallHole is how many bytes of zeros between others are not worth a segment.
const smallHole = 1 << 20

// segments are those of the memory: each has all its bytes in the file, or none.
// A debugger takes the latter for zeros, or from the file that is mapped.
func (p *Process) segments() (all []segment, err error) {
	for _, m := range p.space.Mappings {
		if m.Kind == memory.VSyscall || m.Kind == memory.VVAR { // the kernel leaves them out, too
			continue
		}
		parts, err := p.space.Parts(m.Start, m.End)
		if err != nil {
			return nil, err
		}
		first := len(all)
		for n, part := range parts {
			known := part.State == memory.Dumped
			// A small hole between two that are there goes with them.
			if part.State == memory.Zeros && n > 0 && n < len(parts)-1 && part.Size < smallHole {
				known = true
			}
			if last := len(all) - 1; last >= first && known && all[last].file > 0 {
				all[last].file, all[last].size = all[last].file+part.Size, all[last].size+part.Size
				all[last].parts = append(all[last].parts, part)
				continue
			}
			s := segment{typ: typeLoad, flags: elfFlags(m.Prot), addr: part.Addr, size: part.Size}
			if known {
				s.file, s.parts = part.Size, []memory.Part{part}
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// elfFlags turns PROT_READ, _WRITE and _EXEC (1, 2, 4) into PF_R, _W and _X (4, 2, 1).
func elfFlags(prot uint32) uint32 { return prot&1<<2 | prot&2 | prot&4>>2 }

// layout gives each segment its place in the file and returns what is before
// the first: the headers.
func (p *Process) layout(segments []segment) []byte {
	many := len(segments) >= manySegments
	headers := uint64(headerSize + segmentSize*len(segments))
	if many {
		headers += sectionSize
	}
	at := headers
	for n := range segments {
		s := &segments[n]
		if s.typ == typeLoad && s.file > 0 { // what has nothing there is nowhere
			at = (at + p.pages - 1) / p.pages * p.pages
		}
		s.offset = at
		at += s.file
	}
	le := binary.LittleEndian
	b := make([]byte, headerSize, headers)
	copy(b, "\x7fELF\x02\x01\x01") // 64 bits, little-endian, version 1
	le.PutUint16(b[16:], typeCore)
	le.PutUint16(b[18:], uint16(p.machine))
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], headerSize) // e_phoff
	le.PutUint16(b[52:], headerSize)
	le.PutUint16(b[54:], segmentSize)
	le.PutUint16(b[56:], uint16(min(len(segments), manySegments)))
	if many {
		le.PutUint64(b[40:], headers-sectionSize) // e_shoff
		le.PutUint16(b[58:], sectionSize)
		le.PutUint16(b[60:], 1)
	}
	for _, s := range segments {
		align := uint64(4)
		if s.typ == typeLoad {
			align = p.pages
		}
		b = le.AppendUint32(b, s.typ)
		b = le.AppendUint32(b, s.flags)
		for _, v := range []uint64{s.offset, s.addr, 0, s.file, s.size, align} {
			b = le.AppendUint64(b, v)
		}
	}
	if many {
		section := make([]byte, sectionSize)
		le.PutUint32(section[44:], uint32(len(segments))) // sh_info
		b = append(b, section...)
	}
	return b
}
