package criufile

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxDepth is how deep messages may lie in each other. CRIU's only message that
// holds itself is a directory of cgroups.
const maxDepth = 100

// maxExact is the greatest integer up to which every JSON reader has all.
const maxExact = 1 << 53

// jsonWriter makes JSON of messages in protobuf, field by field as they come.
type jsonWriter struct {
	buf    []byte
	indent bool
	depth  int // of the JSON
}

// newline begins a line, if the JSON is for people.
func (w *jsonWriter) newline() {
	if !w.indent {
		return
	}
	w.buf = append(w.buf, '\n')
	for range w.depth {
		w.buf = append(w.buf, "  "...)
	}
}

func (w *jsonWriter) open(c byte) {
	w.buf = append(w.buf, c)
	w.depth++
}

func (w *jsonWriter) shut(c byte, empty bool) {
	w.depth--
	if !empty {
		w.newline()
	}
	w.buf = append(w.buf, c)
}

// next begins a member of an object or a list.
func (w *jsonWriter) next(first bool) {
	if !first {
		w.buf = append(w.buf, ',')
	}
	w.newline()
}

func (w *jsonWriter) key(k string) {
	w.buf = appendString(w.buf, k)
	w.buf = append(w.buf, ':')
	if w.indent {
		w.buf = append(w.buf, ' ')
	}
}

// message writes a message, all but the closing brace. What protobuf would not
// write again as it is becomes its bytes. The error is about damage.
func (w *jsonWriter) message(m *message, b []byte, hex bool, level int) (empty bool, err error) {
	if level > maxDepth {
		return false, problem(Damaged, "messages lie more than %d deep in each other", maxDepth)
	}
	start, depth := len(w.buf), w.depth
	w.open('{')
	usual, err := w.fields(m, b, hex, level)
	if usual || err != nil {
		return len(b) == 0, err
	}
	if err := wellFormed(m, b); err != nil {
		return false, err
	}
	w.buf, w.depth = w.buf[:start], depth
	w.open('{')
	w.next(true)
	w.key("@wire")
	w.base64(b)
	return false, nil
}

// run is a field that has been begun: a repeated one may have more values.
type run struct {
	number protowire.Number
	known  *field
	list   bool
}

// fields writes the fields of a message. It stops and returns false at what
// protobuf writes in another way.
func (w *jsonWriter) fields(m *message, b []byte, hex bool, level int) (usual bool, err error) {
	var last run
	var seen seenFields
	for first := true; len(b) > 0; first = false {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false, problem(Damaged, "%s: %v", m.name, protowire.ParseError(n))
		}
		if typ == protowire.StartGroupType || typ == protowire.EndGroupType || n != protowire.SizeTag(number) || !number.IsValid() {
			return false, nil
		}
		whole := b
		b = b[n:]
		f := m.field(number)
		if f != nil && f.wire() != typ {
			f = nil
		}
		switch {
		case !first && last.number == number && last.known == f && last.list:
			w.buf = append(w.buf, ',')
			w.newline()
		case !seen.add(number, f != nil):
			return false, nil
		default:
			w.endRun(last)
			w.next(first)
			last = w.begin(run{number: number, known: f})
			if f != nil && f.address && w.indent {
				if w.buf, n = appendAddress(w.buf, f, whole); n > 0 {
					b = whole[n:]
					continue
				}
			}
		}
		value := protowire.ConsumeFieldValue(number, typ, b)
		if value < 0 {
			return false, problem(Damaged, "%s: %v", m.name, protowire.ParseError(value))
		}
		if f == nil {
			usual = w.unknown(typ, b[:value])
		} else {
			usual, err = w.value(f, b[:value], hex || f.hex, level)
		}
		if err != nil || !usual {
			return false, err
		}
		b = b[value:]
		if last.list && f != nil && f.packed {
			last.list = false
			w.shut(']', false)
		}
	}
	w.endRun(last)
	return true, nil
}

// wellFormed says whether a message can be read at all.
func wellFormed(m *message, b []byte) error {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return problem(Damaged, "%s: %v", m.name, protowire.ParseError(n))
		}
		b = b[n:]
	}
	return nil
}

// begin writes a field's name. Fields that are not known may be repeated.
func (w *jsonWriter) begin(r run) run {
	if r.known == nil {
		w.key("#" + strconv.Itoa(int(r.number)))
		r.list = true
	} else {
		w.buf = append(w.buf, r.known.key...)
		if w.indent {
			w.buf = append(w.buf, ' ')
		}
		r.list = r.known.repeated
	}
	if r.list {
		w.open('[')
		w.newline()
	}
	return r
}

func (w *jsonWriter) endRun(r run) {
	if r.list {
		w.shut(']', false)
	}
}

// seenFields is the set of fields that have been in a message.
type seenFields struct {
	low  [4]uint64 // known ones below 256
	rest map[protowire.Number]bool
}

// add adds a field and says whether it is new.
func (s *seenFields) add(number protowire.Number, known bool) bool {
	if known && number < 256 {
		bit := uint64(1) << (number % 64)
		is := s.low[number/64]&bit == 0
		s.low[number/64] |= bit
		return is
	}
	if !known {
		number = -number
	}
	is := !s.rest[number]
	if s.rest == nil {
		s.rest = map[protowire.Number]bool{}
	}
	s.rest[number] = true
	return is
}

// value writes what follows the tag of a known field.
func (w *jsonWriter) value(f *field, b []byte, hex bool, level int) (usual bool, err error) {
	switch f.wire() {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		return n == protowire.SizeVarint(v) && w.integer(f, v, hex), nil
	case protowire.Fixed32Type, protowire.Fixed64Type:
		w.fixed(f.kind, b, hex)
		return true, nil
	}
	content, n := protowire.ConsumeBytes(b)
	if n != protowire.SizeBytes(len(content)) {
		return false, nil
	}
	switch {
	case f.packed:
		return w.packed(f, content, hex), nil
	case f.kind == kindMessage:
		empty, err := w.message(f.message, content, hex, level+1)
		w.shut('}', empty)
		return true, err
	case f.kind == kindString && utf8.Valid(content):
		w.buf = appendString(w.buf, content)
	case f.kind == kindString:
		w.buf = append(w.buf, `{"base64":`...)
		w.base64(content)
		w.buf = append(w.buf, '}')
	case f.quoted:
		w.buf = appendQuotedPrintable(w.buf, content)
	default:
		w.base64(content)
	}
	return true, nil
}

// packed writes the values of a packed field, whose list has been begun.
func (w *jsonWriter) packed(f *field, b []byte, hex bool) bool {
	if len(b) == 0 {
		return false // nobody writes an empty one
	}
	for first := true; len(b) > 0; first = false {
		if !first {
			w.buf = append(w.buf, ',')
			w.newline()
		}
		n := protowire.ConsumeFieldValue(1, f.kind.wire(), b)
		if n < 0 {
			return false
		}
		if f.kind.wire() != protowire.VarintType {
			w.fixed(f.kind, b[:n], hex)
		} else if v, n := protowire.ConsumeVarint(b); n != protowire.SizeVarint(v) || !w.integer(f, v, hex) {
			return false
		}
		b = b[n:]
	}
	return true
}

// integer writes a varint. It is false for one that the field's type cannot hold.
func (w *jsonWriter) integer(f *field, v uint64, hex bool) bool {
	switch f.kind {
	case kindBool:
		if v > 1 {
			return false
		}
		w.buf = strconv.AppendBool(w.buf, v == 1)
	case kindUint32:
		if v>>32 != 0 {
			return false
		}
		if w.indent {
			var said bool
			if w.buf, said = appendWords(w.buf, f, v); said {
				return true
			}
		}
		w.unsigned(v, hex)
	case kindUint64:
		w.unsigned(v, hex)
	case kindInt32, kindEnum:
		if v != uint64(int64(int32(v))) {
			return false
		}
		if f.kind == kindEnum {
			if name, known := f.enum.byNumber[int32(v)]; known {
				w.buf = appendString(w.buf, name)
				return true
			}
			hex = false // a string is a name
		}
		w.signed(int64(v), hex)
	case kindInt64:
		w.signed(int64(v), hex)
	case kindSint32:
		if v>>32 != 0 {
			return false
		}
		w.signed(protowire.DecodeZigZag(v), hex)
	case kindSint64:
		w.signed(protowire.DecodeZigZag(v), hex)
	}
	return true
}

func (w *jsonWriter) fixed(k fieldKind, b []byte, hex bool) {
	switch k {
	case kindFixed32:
		v, _ := protowire.ConsumeFixed32(b)
		w.unsigned(uint64(v), hex)
	case kindFixed64:
		v, _ := protowire.ConsumeFixed64(b)
		w.unsigned(v, hex)
	case kindSfixed32:
		v, _ := protowire.ConsumeFixed32(b)
		w.signed(int64(int32(v)), hex)
	case kindSfixed64:
		v, _ := protowire.ConsumeFixed64(b)
		w.signed(int64(v), hex)
	}
}

func (w *jsonWriter) unsigned(v uint64, hex bool) {
	if hex || v > maxExact {
		w.buf = append(w.buf, `"0x`...)
		w.buf = strconv.AppendUint(w.buf, v, 16)
		w.buf = append(w.buf, '"')
		return
	}
	w.buf = strconv.AppendUint(w.buf, v, 10)
}

func (w *jsonWriter) signed(v int64, hex bool) {
	if v >= 0 {
		w.unsigned(uint64(v), hex)
		return
	}
	if v < -maxExact {
		w.buf = append(w.buf, '"')
		defer func() { w.buf = append(w.buf, '"') }()
	}
	w.buf = strconv.AppendInt(w.buf, v, 10)
}

// unknown writes the value of a field that the schema does not have.
func (w *jsonWriter) unknown(typ protowire.Type, b []byte) (usual bool) {
	switch typ {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		if n != protowire.SizeVarint(v) {
			return false
		}
		w.buf = append(w.buf, `{"varint":`...)
		w.unsigned(v, false)
	case protowire.Fixed32Type:
		v, _ := protowire.ConsumeFixed32(b)
		w.buf = append(w.buf, `{"fixed32":`...)
		w.unsigned(uint64(v), false)
	case protowire.Fixed64Type:
		v, _ := protowire.ConsumeFixed64(b)
		w.buf = append(w.buf, `{"fixed64":`...)
		w.unsigned(v, false)
	default:
		content, n := protowire.ConsumeBytes(b)
		if n != protowire.SizeBytes(len(content)) {
			return false
		}
		w.buf = append(w.buf, `{"bytes":`...)
		w.base64(content)
	}
	w.buf = append(w.buf, '}')
	return true
}

func (w *jsonWriter) base64(b []byte) {
	w.buf = append(w.buf, '"')
	w.buf = base64.StdEncoding.AppendEncode(w.buf, b)
	w.buf = append(w.buf, '"')
}
