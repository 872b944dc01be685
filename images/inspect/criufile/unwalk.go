package criufile

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// jsonReader reads the JSON of a message, key by key as they come.
type jsonReader struct {
	dec *json.Decoder
}

func (r *jsonReader) delim(want rune) error {
	t, err := r.dec.Token()
	if err != nil {
		return err
	}
	if d, is := t.(json.Delim); !is || rune(d) != want {
		return problem(BadJSON, "%s where %q must be", short(t), want)
	}
	return nil
}

func (r *jsonReader) key() (string, error) { return r.text() }

func (r *jsonReader) text() (string, error) {
	t, err := r.dec.Token()
	if err != nil {
		return "", err
	}
	s, is := t.(string)
	if !is {
		return "", problem(BadJSON, "%s where a string must be", short(t))
	}
	return s, nil
}

// message appends the message that the object is. The payload of an entry is
// put into extra, if that is given.
func (r *jsonReader) message(m *message, b []byte, level int, extra *json.RawMessage) ([]byte, error) {
	if level > maxDepth {
		return nil, problem(BadJSON, "objects lie more than %d deep in each other", maxDepth)
	}
	if err := r.delim('{'); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for r.dec.More() {
		key, err := r.key()
		if err != nil {
			return nil, err
		}
		if seen[key] || seen["@wire"] && key != "extra" {
			return nil, problem(BadJSON, "%s: %q is there twice, or beside @wire", m.name, key)
		}
		seen[key] = true
		f := m.byName[key]
		switch {
		case f != nil:
			b, err = r.field(f, b, level)
		case key == "extra" && extra != nil:
			err = r.dec.Decode(extra)
		case key == "@wire":
			b, err = r.wire(b)
		case strings.HasPrefix(key, "#"):
			b, err = r.unknown(key, b)
		default:
			err = problem(BadJSON, "%s has no field %q", m.name, key)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, r.delim('}')
}

// wire appends what a string of base64 holds.
func (r *jsonReader) wire(b []byte) ([]byte, error) {
	s, err := r.text()
	if err != nil {
		return nil, err
	}
	content, err := decodeBase64(s)
	return append(b, content...), err
}

// field appends the value or the values of a field.
func (r *jsonReader) field(f *field, b []byte, level int) ([]byte, error) {
	if !f.repeated {
		return r.value(f, protowire.AppendTag(b, f.number, f.kind.wire()), level)
	}
	if err := r.delim('['); err != nil {
		return nil, err
	}
	to := b
	if f.packed {
		to = nil
	}
	var err error
	for r.dec.More() {
		if f.address {
			if to, err = r.address(f, to); err != nil {
				return nil, err
			}
			continue
		}
		if !f.packed {
			to = protowire.AppendTag(to, f.number, f.kind.wire())
		}
		if to, err = r.value(f, to, level); err != nil {
			return nil, err
		}
	}
	if f.packed && len(to) > 0 {
		to = protowire.AppendBytes(protowire.AppendTag(b, f.number, protowire.BytesType), to)
	}
	return to, r.delim(']')
}

// address appends an IP address, or one word of it.
func (r *jsonReader) address(f *field, b []byte) ([]byte, error) {
	var v any
	if err := r.dec.Decode(&v); err != nil {
		return nil, err
	}
	if s, is := v.(string); is {
		if words, is := addressWords(s); is {
			for _, w := range words {
				b = protowire.AppendVarint(protowire.AppendTag(b, f.number, protowire.VarintType), uint64(w))
			}
			return b, nil
		}
	}
	return appendScalar(f, protowire.AppendTag(b, f.number, protowire.VarintType), v)
}

// value appends one value of a field, without its tag.
func (r *jsonReader) value(f *field, b []byte, level int) ([]byte, error) {
	if f.kind == kindMessage {
		content, err := r.message(f.message, nil, level+1, nil)
		return protowire.AppendBytes(b, content), err
	}
	var v any
	if err := r.dec.Decode(&v); err != nil {
		return nil, err
	}
	b, err := appendScalar(f, b, v)
	if is, bad := err.(*Error); bad {
		is.Text = f.name + ": " + is.Text
	}
	return b, err
}

func appendScalar(f *field, b []byte, v any) ([]byte, error) {
	var u uint64
	var s int64
	var err error
	switch f.kind {
	case kindBool:
		is, ok := v.(bool)
		if !ok {
			return nil, problem(BadJSON, "%s is not true or false", short(v))
		}
		return protowire.AppendVarint(b, protowire.EncodeBool(is)), nil
	case kindUint32:
		if s, is := v.(string); is {
			if u, is := wordValue(f, s); is {
				return protowire.AppendVarint(b, u), nil
			}
		}
		u, err = unsignedOf(v, 32)
	case kindUint64:
		u, err = unsignedOf(v, 64)
	case kindInt32:
		s, err = signedOf(v, 32)
		u = uint64(s)
	case kindInt64:
		s, err = signedOf(v, 64)
		u = uint64(s)
	case kindSint32:
		s, err = signedOf(v, 32)
		u = protowire.EncodeZigZag(s)
	case kindSint64:
		s, err = signedOf(v, 64)
		u = protowire.EncodeZigZag(s)
	case kindEnum:
		s, err = enumOf(f.enum, v)
		u = uint64(s)
	case kindFixed32:
		u, err = unsignedOf(v, 32)
		return protowire.AppendFixed32(b, uint32(u)), err
	case kindFixed64:
		u, err = unsignedOf(v, 64)
		return protowire.AppendFixed64(b, u), err
	case kindSfixed32:
		s, err = signedOf(v, 32)
		return protowire.AppendFixed32(b, uint32(s)), err
	case kindSfixed64:
		s, err = signedOf(v, 64)
		return protowire.AppendFixed64(b, uint64(s)), err
	default:
		content, err := contentOf(f, v)
		return protowire.AppendBytes(b, content), err
	}
	return protowire.AppendVarint(b, u), err
}

// contentOf is the value of a string, or of bytes.
func contentOf(f *field, v any) ([]byte, error) {
	if object, is := v.(map[string]any); is && f.kind == kindString && len(object) == 1 {
		return bytesOf(object["base64"])
	}
	s, is := v.(string)
	switch {
	case !is:
		return nil, problem(BadJSON, "%s is no string", short(v))
	case f.kind == kindString:
		return []byte(s), nil
	case f.quoted:
		content, ok := unquotePrintable(s)
		if !ok {
			return nil, problem(BadJSON, "%q is no quoted-printable", short(s))
		}
		return content, nil
	}
	return decodeBase64(s)
}

func decodeBase64(s string) ([]byte, error) {
	// It reads over the line breaks that crit puts in.
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, problem(BadJSON, "%q is no base64", short(s))
	}
	return b, nil
}

// unsignedOf reads a number, or one in a string, "0x..." too.
func unsignedOf(v any, bits int) (uint64, error) {
	s, base := numeral(v)
	u, err := strconv.ParseUint(s, base, bits)
	if err != nil {
		return 0, problem(BadJSON, "%s is no whole number of %d bits", short(v), bits)
	}
	return u, nil
}

func signedOf(v any, bits int) (int64, error) {
	s, base := numeral(v)
	n, err := strconv.ParseInt(s, base, bits)
	if err != nil {
		return 0, problem(BadJSON, "%s is no whole number of %d bits with a sign", short(v), bits)
	}
	return n, nil
}

func numeral(v any) (s string, base int) {
	switch v := v.(type) {
	case json.Number:
		return v.String(), 10
	case string:
		if digits, hex := strings.CutPrefix(v, "0x"); hex {
			return digits, 16
		}
		return v, 10
	}
	return "", 10
}

func enumOf(e *enum, v any) (int64, error) {
	name, is := v.(string)
	if !is {
		return signedOf(v, 32)
	}
	n, known := e.byName[name]
	if !known {
		return 0, problem(BadJSON, "there is no %q", short(name))
	}
	return int64(n), nil
}

// unknown appends the values of a field that the schema does not have.
func (r *jsonReader) unknown(key string, b []byte) ([]byte, error) {
	n, err := strconv.ParseUint(key[1:], 10, 29)
	number := protowire.Number(n)
	if err != nil || !number.IsValid() {
		return nil, problem(BadJSON, "%q is no number of a field", short(key))
	}
	var values []map[string]any
	if err := r.dec.Decode(&values); err != nil {
		return nil, problem(BadJSON, "%s: it is no list of objects", key)
	}
	for _, object := range values {
		if len(object) != 1 {
			return nil, problem(BadJSON, "%s: a value has one type", key)
		}
		for typ, v := range object {
			if b, err = appendUnknown(b, number, typ, v); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

func appendUnknown(b []byte, number protowire.Number, typ string, v any) ([]byte, error) {
	switch typ {
	case "varint":
		u, err := unsignedOf(v, 64)
		return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), u), err
	case "fixed32":
		u, err := unsignedOf(v, 32)
		return protowire.AppendFixed32(protowire.AppendTag(b, number, protowire.Fixed32Type), uint32(u)), err
	case "fixed64":
		u, err := unsignedOf(v, 64)
		return protowire.AppendFixed64(protowire.AppendTag(b, number, protowire.Fixed64Type), u), err
	case "bytes":
		content, err := bytesOf(v)
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), content), err
	}
	return nil, problem(BadJSON, "#%d: there is no wire type %q", number, short(typ))
}
