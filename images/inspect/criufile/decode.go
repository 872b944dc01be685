package criufile

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"io"
	"strconv"
)

// DecodeOptions say how the JSON looks. The zero value puts an entry on a line.
type DecodeOptions struct {
	// Indent puts every value on a line of its own, and says flags, devices,
	// addresses and states in words.
	Indent bool
}

// flushSize is how much JSON is kept before it is written.
const flushSize = 64 << 10

// Decode writes a file as JSON, entry by entry.
func Decode(ctx context.Context, w io.Writer, path string, o DecodeOptions) error {
	f, err := Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Decode(ctx, w, o)
}

// Decode writes the file, of which nothing has been read, as JSON.
func (f *File) Decode(ctx context.Context, w io.Writer, o DecodeOptions) error {
	if f.kind.Raw() {
		return &Error{Problem: Raw, Path: f.path, Text: "has no entries: it is " + f.kind.Text}
	}
	d := decoder{jsonWriter{indent: o.Indent}, f, w}
	d.begin()
	for {
		err := f.next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = d.entry()
		}
		if err == nil && len(d.buf) > flushSize {
			err = d.flush()
		}
		if err != nil {
			return err
		}
	}
	return d.end()
}

type decoder struct {
	jsonWriter
	f *File
	w io.Writer
}

func (d *decoder) flush() error {
	_, err := d.w.Write(d.buf)
	d.buf = d.buf[:0]
	return err
}

// line begins an entry: on a line of its own in the compact form, too.
func (d *decoder) line() {
	d.newline()
	if !d.indent {
		d.buf = append(d.buf, '\n')
	}
}

func (d *decoder) begin() {
	d.open('{')
	d.next(true)
	d.key("magic")
	d.buf = appendString(d.buf, d.f.kind.Name)
	if d.f.head != d.f.kind.head {
		d.next(false)
		d.key("head")
		d.buf = appendString(d.buf, headNames[d.f.head])
	}
	d.next(false)
	d.key("entries")
	d.open('[')
}

func (d *decoder) end() error {
	d.depth--
	d.line()
	d.buf = append(d.buf, ']')
	d.shut('}', false)
	d.buf = append(d.buf, '\n')
	return d.flush()
}

// headNames are the values of "head", where it is not the usual one.
var headNames = [...]string{headNone: "none", headCommon: "common", headService: "service"}

// entry writes the entry that has been read, and its payload.
func (d *decoder) entry() error {
	if d.f.entry > 1 {
		d.buf = append(d.buf, ',')
	}
	d.line()
	empty, err := d.message(d.f.of, d.f.message, false, 0)
	if err == nil && d.f.hasExtra() {
		d.next(empty)
		empty = false
		d.key("extra")
		err = d.extra()
	}
	d.shut('}', empty)
	if err != nil {
		return d.f.at(err)
	}
	return nil
}

func (f *File) hasExtra() bool { return f.pending > 0 || len(f.extra) > 0 }

func (d *decoder) extra() error {
	switch d.f.kind.payload {
	case payloadQueues:
		return d.queues()
	case payloadSemaphores:
		return d.semaphores()
	case payloadMessages:
		return d.messages(d.f.extra)
	}
	if d.f.of.name == "ipc_shm_entry" {
		b, err := d.padded(int(numberIn(d.f.of, d.f.message, "size")), int(d.f.pending))
		d.base64(b)
		return err
	}
	return d.stream(d.f.pending)
}

// stream writes bytes of the payload, which may be many, in base64.
func (d *decoder) stream(size int64) error {
	d.buf = append(d.buf, '"')
	// Three bytes are four characters.
	b := make([]byte, min(size, 3*16<<10))
	for size > 0 {
		b = b[:min(size, int64(len(b)))]
		if err := d.f.readPayload(b); err != nil {
			return err
		}
		size -= int64(len(b))
		d.buf = base64.StdEncoding.AppendEncode(d.buf, b)
		if err := d.flush(); err != nil {
			return err
		}
	}
	d.buf = append(d.buf, '"')
	return nil
}

// queues writes what was in the two queues of a TCP socket.
func (d *decoder) queues() error {
	in := int64(numberIn(d.f.of, d.f.message, "inq_len"))
	out := d.f.pending - in
	d.open('{')
	d.next(true)
	d.key("inq")
	err := d.stream(in)
	if err == nil {
		d.next(false)
		d.key("outq")
		err = d.stream(out)
	}
	d.shut('}', false)
	return err
}

// padded reads payload that was filled up to a round size. What it was filled
// with is only kept if it is not zero.
func (d *decoder) padded(size, round int) ([]byte, error) {
	b := make([]byte, round)
	if err := d.f.readPayload(b); err != nil {
		return nil, err
	}
	return unpad(b, size), nil
}

func unpad(b []byte, size int) []byte {
	for _, c := range b[size:] {
		if c != 0 {
			return b
		}
	}
	return b[:size]
}

func (d *decoder) semaphores() error {
	b, err := d.padded(2*int(numberIn(d.f.of, d.f.message, "nsems")), int(d.f.pending))
	if err != nil {
		return err
	}
	d.buf = append(d.buf, '[')
	for n := 0; n < len(b); n += 2 {
		if n > 0 {
			d.buf = append(d.buf, ',')
		}
		d.buf = strconv.AppendUint(d.buf, uint64(binary.LittleEndian.Uint16(b[n:])), 10)
	}
	d.buf = append(d.buf, ']')
	return nil
}

// messages writes those of a queue: each as an object and its text in base64.
func (d *decoder) messages(b []byte) error {
	of, err := messageNamed("ipc_msg")
	if err != nil {
		return err
	}
	d.open('[')
	for first := true; len(b) > 0; first = false {
		size := int(binary.LittleEndian.Uint32(b))
		m := b[4 : 4+size]
		b = b[4+size:]
		text := int(numberIn(of, m, "msize"))
		round := int(roundUp(uint64(text), 8))
		d.next(first)
		empty, err := d.message(of, m, false, 1)
		d.shut('}', empty)
		if err != nil {
			return err
		}
		d.next(false)
		d.base64(unpad(b[:round], text))
		b = b[round:]
	}
	d.shut(']', false)
	return nil
}
