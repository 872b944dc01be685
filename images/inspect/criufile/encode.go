package criufile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Encode writes the file that the JSON of Decode is of: the same bytes. What crit
// writes it reads, too. Fields are written in the order that they have.
func Encode(ctx context.Context, w io.Writer, r io.Reader) error {
	e := encoder{w: bufio.NewWriterSize(w, 64<<10), ctx: ctx}
	e.jsonReader.dec = json.NewDecoder(r)
	e.dec.UseNumber()
	if err := e.file(); err != nil {
		return e.at(err)
	}
	return e.w.Flush()
}

type encoder struct {
	jsonReader
	ctx   context.Context
	w     *bufio.Writer
	kind  Kind
	head  head
	entry int
	buf   []byte // of the entry
}

// at says where an error is.
func (e *encoder) at(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = problem(BadJSON, "it ends too early")
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		err = problem(BadJSON, "offset %d: %v", syntax.Offset, syntax)
	}
	var is *Error
	if errors.As(err, &is) {
		is.Entry = e.entry
	}
	return err
}

// file reads the object that is the file. Another program may have sorted its
// keys: the entries wait for what is needed to write them.
func (e *encoder) file() error {
	if err := e.delim('{'); err != nil {
		return err
	}
	var entries []byte // that came too early
	var known, headed, wrote bool
	for e.dec.More() {
		key, err := e.key()
		if err != nil {
			return err
		}
		switch {
		case key == "magic" && !known:
			known = true
			err = e.magic()
		case key == "head" && !headed && !wrote:
			headed = true
			err = e.readHead()
		case key == "entries" && !wrote && entries == nil:
			if known {
				wrote = true
				err = e.entries(headed)
				break
			}
			var raw json.RawMessage
			err = e.dec.Decode(&raw)
			entries = raw
		default:
			err = problem(BadJSON, "%q: there is no such key, or it is there already", key)
		}
		if err != nil {
			return err
		}
	}
	if err := e.delim('}'); err != nil {
		return err
	}
	if !known || !wrote && entries == nil {
		return problem(BadJSON, `it has no "magic" or no "entries"`)
	}
	if _, err := e.dec.Token(); err != io.EOF {
		return problem(BadJSON, "something follows the object")
	}
	if wrote {
		return nil
	}
	e.dec = decoderOf(entries)
	return e.entries(headed)
}

func (e *encoder) magic() error {
	name, err := e.text()
	if err != nil {
		return err
	}
	var known bool
	e.kind, known = kindOf(func(k Kind) bool { return k.Name == name && !k.Raw() })
	if !known {
		return problem(BadJSON, "magic %q: CRIU has no such files with entries", name)
	}
	return nil
}

func (e *encoder) readHead() error {
	name, err := e.text()
	if err != nil {
		return err
	}
	for h, n := range headNames {
		if n == name {
			e.head = head(h)
			return nil
		}
	}
	return problem(BadJSON, `head %q: it is "none", "common" or "service"`, name)
}

func (e *encoder) entries(headed bool) error {
	h := e.kind.head
	if headed {
		h = e.head
	}
	var b []byte
	switch h {
	case headCommon:
		b = binary.LittleEndian.AppendUint32(b, magicCommon)
	case headService:
		b = binary.LittleEndian.AppendUint32(b, magicService)
	}
	if _, err := e.w.Write(binary.LittleEndian.AppendUint32(b, e.kind.Magic)); err != nil {
		return err
	}
	if err := e.delim('['); err != nil {
		return err
	}
	for e.dec.More() {
		e.entry++
		if err := e.ctx.Err(); err != nil {
			return err
		}
		if err := e.oneEntry(); err != nil {
			return err
		}
	}
	if err := e.delim(']'); err != nil {
		return err
	}
	e.entry = 0
	return nil
}

// oneEntry reads an entry and writes it.
func (e *encoder) oneEntry() error {
	of, err := messageNamed(e.kind.messageOf(e.entry))
	if err != nil {
		return err
	}
	var extra json.RawMessage
	e.buf = e.buf[:0]
	if e.buf, err = e.message(of, e.buf, 0, &extra); err != nil {
		return err
	}
	payload, err := e.payload(of, extra)
	if err != nil {
		return err
	}
	if err := writeSized(e.w, e.buf); err != nil {
		return err
	}
	_, err = e.w.Write(payload)
	return err
}

func writeSized(w io.Writer, b []byte) error {
	if uint64(len(b)) > 1<<32-1 {
		return problem(BadJSON, "a message of %d bytes is too long", len(b))
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// payload makes the payload of an entry, which must be as long as the message says.
func (e *encoder) payload(of *message, raw json.RawMessage) (b []byte, err error) {
	switch e.kind.payload {
	case payloadNone:
		if raw != nil {
			return nil, problem(BadJSON, "%s has no payload", e.kind.Name)
		}
		return nil, nil
	case payloadMessages:
		return e.messages(of, raw)
	}
	var extra any
	if raw != nil {
		if err := decoderOf(raw).Decode(&extra); err != nil {
			return nil, err
		}
	}
	switch {
	case extra == nil || extra == "":
	case e.kind.payload == payloadQueues:
		b, err = queues(extra)
	case e.kind.payload == payloadSemaphores:
		b, err = semaphores(extra)
	default:
		b, err = bytesOf(extra)
	}
	if err != nil {
		return nil, err
	}
	want, err := payloadSize(of, e.buf)
	if err != nil {
		return nil, err
	}
	if of.name == "ipc_shm_entry" || e.kind.payload == payloadSemaphores {
		b = append(b, make([]byte, roundUp(uint64(len(b)), roundOf(of))-uint64(len(b)))...)
	}
	if want != restOfFile && want != int64(len(b)) {
		return nil, problem(BadJSON, "extra: it has %d bytes, and the entry says %d", len(b), want)
	}
	return b, nil
}

func roundOf(of *message) uint64 {
	if of.name == "ipc_shm_entry" {
		return 4
	}
	return 8
}

// queues undoes decoder.queues.
func queues(extra any) ([]byte, error) {
	object, is := extra.(map[string]any)
	if !is || len(object) != 2 {
		return nil, problem(BadJSON, `extra: it is not {"inq": ..., "outq": ...}`)
	}
	in, err := bytesOf(object["inq"])
	if err != nil {
		return nil, err
	}
	out, err := bytesOf(object["outq"])
	return append(in, out...), err
}

// semaphores undoes decoder.semaphores.
func semaphores(extra any) (b []byte, err error) {
	list, is := extra.([]any)
	if !is {
		return nil, problem(BadJSON, "extra: it is no list of numbers")
	}
	for _, v := range list {
		n, err := unsignedOf(v, 16)
		if err != nil {
			return nil, err
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	return b, nil
}

// messages undoes decoder.messages.
func (e *encoder) messages(of *message, raw json.RawMessage) ([]byte, error) {
	one, err := messageNamed("ipc_msg")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	count := uint64(0)
	r := jsonReader{decoderOf(raw)}
	if raw != nil {
		if err := r.delim('['); err != nil {
			return nil, err
		}
	}
	for ; raw != nil && r.dec.More(); count++ {
		m, err := r.message(one, nil, 1, nil)
		if err != nil {
			return nil, err
		}
		text, err := r.wire(nil)
		if err != nil {
			return nil, err
		}
		size := numberIn(one, m, "msize")
		round := roundUp(size, 8)
		if roundUp(uint64(len(text)), 8) != round {
			return nil, problem(BadJSON, "extra: a text has %d bytes, and its message says %d", len(text), size)
		}
		if err := writeSized(&b, m); err != nil {
			return nil, err
		}
		b.Write(text)
		b.Write(make([]byte, round-uint64(len(text))))
	}
	if want := numberIn(of, e.buf, "qnum"); count != want {
		return nil, problem(BadJSON, "extra: it has %d messages, and the entry says %d", count, want)
	}
	return b.Bytes(), nil
}

func decoderOf(raw []byte) *json.Decoder {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return d
}

// bytesOf reads base64, with line breaks or without.
func bytesOf(v any) ([]byte, error) {
	s, is := v.(string)
	if !is {
		return nil, problem(BadJSON, "%s is no string of base64", short(v))
	}
	return decodeBase64(s)
}

func short(v any) string {
	s := fmt.Sprint(v)
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	return s
}
