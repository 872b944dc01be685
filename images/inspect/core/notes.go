package core

import (
	"encoding/binary"

	"crucible/images/inspect/memory"
)

// notes are all notes of the file, in the kernel's order: the first thread's,
// then those of the process, then those of the other threads.
func (p *Process) notes() (b []byte) {
	for n, t := range p.Threads {
		b = appendNote(b, note{"CORE", ntPRStatus, p.prstatus(t)})
		if n == 0 {
			b = appendNote(b, note{"CORE", ntPRPSInfo, p.prpsinfo()})
			auxv := make([]byte, 8*len(p.Auxv))
			put64(auxv, p.Auxv)
			b = appendNote(b, note{"CORE", ntAuxv, auxv})
			b = appendNote(b, note{"CORE", ntFile, p.files()})
		}
		for _, more := range t.notes {
			b = appendNote(b, more)
		}
	}
	return b
}

// appendNote appends a header, the name and the content, each filled up to 4 bytes.
func appendNote(b []byte, n note) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(len(n.name)+1))
	b = le.AppendUint32(b, uint32(len(n.data)))
	b = le.AppendUint32(b, n.typ)
	b = fill(append(b, n.name+"\x00"...))
	return fill(append(b, n.data...))
}

func fill(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// prstatus is struct elf_prstatus of 64 bits (linux/elfcore.h).
func (p *Process) prstatus(t Thread) []byte {
	const registers = 112
	b := make([]byte, registers+8*len(t.Registers)+8)
	le := binary.LittleEndian
	le.PutUint64(b[24:], t.Blocked) // pr_sighold
	for n, id := range []int{t.ID, p.Ppid, p.Pgid, p.Sid} {
		le.PutUint32(b[32+4*n:], uint32(id))
	}
	put64(b[registers:], t.Registers)
	le.PutUint32(b[len(b)-8:], 1) // pr_fpvalid
	return b
}

// prpsinfo is struct elf_prpsinfo of 64 bits.
func (p *Process) prpsinfo() []byte {
	b := make([]byte, 136)
	le := binary.LittleEndian
	b[1] = 'R' // pr_sname: it was about to run
	b[3] = byte(int8(p.Nice))
	le.PutUint32(b[16:], p.UID)
	le.PutUint32(b[20:], p.GID)
	for n, id := range []int{p.Pid, p.Ppid, p.Pgid, p.Sid} {
		le.PutUint32(b[24+4*n:], uint32(id))
	}
	copy(b[40:55], p.Name)
	copy(b[56:135], p.Args)
	return b
}

// files is what NT_FILE has: which file is mapped where.
func (p *Process) files() []byte {
	le := binary.LittleEndian
	var ranges, names []byte
	count := uint64(0)
	for _, m := range p.space.Mappings {
		if m.Kind != memory.File || m.Name == "" {
			continue
		}
		count++
		for _, v := range []uint64{m.Start, m.End, m.Offset / p.pages} {
			ranges = le.AppendUint64(ranges, v)
		}
		names = append(append(names, m.Name...), 0)
	}
	b := le.AppendUint64(nil, count)
	b = le.AppendUint64(b, p.pages)
	return append(append(b, ranges...), names...)
}
