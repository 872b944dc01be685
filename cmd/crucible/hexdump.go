package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// hexDump prints memory as `hexdump -C` does: 16 bytes a line, and * for lines
// that are like the one before.
type hexDump struct {
	out  io.Writer
	w    *bufio.Writer
	line []byte // the last one's bytes
	next uint64 // the address that goes on where the last line ended
	star bool
}

// write prints what is at an address, which goes on where the last call ended
// or begins anew.
func (d *hexDump) write(addr uint64, b []byte) error {
	if d.w == nil {
		d.w = bufio.NewWriter(d.out)
	}
	if addr != d.next {
		d.line = nil
	}
	for len(b) > 0 {
		n := min(len(b), 16-int(addr%16)) // lines begin at multiples of 16
		d.row(addr, b[:n])
		addr, b = addr+uint64(n), b[n:]
	}
	d.next = addr
	return d.w.Flush()
}

func (d *hexDump) row(addr uint64, b []byte) {
	if len(b) == 16 && bytes.Equal(b, d.line) {
		if !d.star {
			fmt.Fprintln(d.w, "*")
			d.star = true
		}
		return
	}
	d.line, d.star = append(d.line[:0], b...), false
	skip := int(addr % 16)
	hex, text := make([]byte, 0, 52), make([]byte, 0, 16)
	for i := range 16 {
		if i == 8 {
			hex = append(hex, ' ')
		}
		if i < skip || i >= skip+len(b) {
			hex, text = append(hex, "   "...), append(text, ' ')
			continue
		}
		hex = fmt.Appendf(hex, "%02x ", b[i-skip])
		text = append(text, visible(b[i-skip]))
	}
	fmt.Fprintf(d.w, "%012x  %s |%s|\n", addr&^15, hex, text)
}

// visible is a byte, or a dot for what a terminal might obey.
func visible(c byte) byte {
	if c < ' ' || c > '~' {
		return '.'
	}
	return c
}

// note prints why something is missing.
func (d *hexDump) note(addr, size uint64, why string) error {
	d.line, d.star = nil, false
	_, err := fmt.Fprintf(d.out, "%012x  %s: %s\n", addr, formatSize(int64(size)), printable(why))
	return err
}

// end prints where it ended, if that is not plain.
func (d *hexDump) end() error {
	if !d.star {
		return nil
	}
	_, err := fmt.Fprintf(d.out, "%012x\n", d.next)
	return err
}
