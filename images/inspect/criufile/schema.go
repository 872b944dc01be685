package criufile

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// schemaSet is a FileDescriptorSet (google/protobuf/descriptor.proto).
//
//go:embed schema.pb
var schemaSet []byte

// schema is what schemaSet says, after the first use.
var schema struct {
	once     sync.Once
	messages map[string]*message
	err      error
}

// message is how a message of CRIU's is written.
type message struct {
	name     string
	byName   map[string]*field
	byNumber []*field // by number; nil where there is none
}

type field struct {
	name     string
	key      string // as JSON has it
	number   protowire.Number
	kind     fieldKind
	repeated bool
	packed   bool
	hex      bool // better read in base 16, with all that is below it
	quoted   bool // bytes that are mostly text: in quoted-printable
	// What people read in place of a number: see words.go.
	flags             []string
	device, oldDevice bool
	address           bool
	words             map[uint64]string

	typeName string
	message  *message
	enum     *enum
}

type enum struct {
	byNumber map[int32]string
	byName   map[string]int32
}

// fieldKind is FieldDescriptorProto.Type. CRIU uses no others.
type fieldKind int

const (
	kindInt64    fieldKind = 3
	kindUint64   fieldKind = 4
	kindInt32    fieldKind = 5
	kindFixed64  fieldKind = 6
	kindFixed32  fieldKind = 7
	kindBool     fieldKind = 8
	kindString   fieldKind = 9
	kindMessage  fieldKind = 11
	kindBytes    fieldKind = 12
	kindUint32   fieldKind = 13
	kindEnum     fieldKind = 14
	kindSfixed32 fieldKind = 15
	kindSfixed64 fieldKind = 16
	kindSint32   fieldKind = 17
	kindSint64   fieldKind = 18
)

// wire is the wire type of one value of the field.
func (k fieldKind) wire() protowire.Type {
	switch k {
	case kindFixed64, kindSfixed64:
		return protowire.Fixed64Type
	case kindFixed32, kindSfixed32:
		return protowire.Fixed32Type
	case kindString, kindBytes, kindMessage:
		return protowire.BytesType
	}
	return protowire.VarintType
}

// wire is the wire type of the field, as it is usually written.
func (f *field) wire() protowire.Type {
	if f.packed {
		return protowire.BytesType
	}
	return f.kind.wire()
}

func (m *message) field(number protowire.Number) *field {
	if int(number) < len(m.byNumber) {
		return m.byNumber[number]
	}
	return nil
}

// messageNamed finds a message of CRIU's.
func messageNamed(name string) (*message, error) {
	schema.once.Do(func() { schema.messages, schema.err = parseSchema(schemaSet) })
	if schema.err != nil {
		return nil, schema.err
	}
	m := schema.messages[name]
	if m == nil {
		return nil, fmt.Errorf("schema of CRIU's files: no message %s", name)
	}
	return m, nil
}

// parser collects what the descriptors name before it can be tied together.
type parser struct {
	messages map[string]*message
	enums    map[string]*enum
}

// parseSchema reads a FileDescriptorSet. The numbers are the fields' in
// google/protobuf/descriptor.proto.
func parseSchema(set []byte) (map[string]*message, error) {
	p := parser{map[string]*message{}, map[string]*enum{}}
	err := eachField(set, func(_ protowire.Number, _ uint64, file []byte) error {
		return eachField(file, func(n protowire.Number, _ uint64, b []byte) error {
			switch n {
			case 4: // message_type
				return p.message("", b)
			case 5: // enum_type
				return p.enum("", b)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("schema of CRIU's files: %w", err)
	}
	for _, m := range p.messages {
		for _, f := range m.byName {
			f.message, f.enum = p.messages[f.typeName], p.enums[f.typeName]
			if f.kind == kindMessage && f.message == nil || f.kind == kindEnum && f.enum == nil {
				return nil, fmt.Errorf("schema of CRIU's files: %s.%s: no type %q", m.name, f.name, f.typeName)
			}
		}
	}
	return p.messages, nil
}

func (p parser) message(scope string, b []byte) error {
	m := &message{byName: map[string]*field{}}
	if err := eachField(b, func(n protowire.Number, _ uint64, b []byte) error {
		if n == 1 { // name, which is written first
			m.name = scope + string(b)
		}
		return nil
	}); err != nil {
		return err
	}
	p.messages[m.name] = m
	return eachField(b, func(n protowire.Number, _ uint64, b []byte) error {
		switch n {
		case 2:
			return m.add(b)
		case 3: // nested_type
			return p.message(m.name+".", b)
		case 4: // enum_type
			return p.enum(m.name+".", b)
		}
		return nil
	})
}

// add adds a field, of a FieldDescriptorProto.
func (m *message) add(b []byte) error {
	f := &field{}
	err := eachField(b, func(n protowire.Number, v uint64, b []byte) error {
		switch n {
		case 1:
			f.name = string(b)
			f.key = `"` + f.name + `":`
		case 3:
			f.number = protowire.Number(v)
		case 4: // label
			f.repeated = v == 3
		case 5:
			f.kind = fieldKind(v)
		case 6:
			f.typeName = strings.TrimPrefix(string(b), ".")
		case 8:
			return f.options(b)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if f.number < 1 || f.number > 1<<12 || f.kind < kindInt64 || f.kind == 10 || f.kind > kindSint64 {
		return fmt.Errorf("%s.%s: number %d, type %d", m.name, f.name, f.number, f.kind)
	}
	for len(m.byNumber) <= int(f.number) {
		m.byNumber = append(m.byNumber, nil)
	}
	m.byNumber[f.number], m.byName[f.name] = f, f
	return nil
}

// options reads FieldOptions; 1018 is CRIU's own, message CRIU_Opts.
func (f *field) options(b []byte) error {
	return eachField(b, func(n protowire.Number, v uint64, b []byte) error {
		switch n {
		case 2:
			f.packed = v != 0
		case 1018:
			return eachField(b, func(n protowire.Number, v uint64, b []byte) error {
				f.option(n, v, string(b))
				return nil
			})
		}
		return nil
	})
}

// option is one of CRIU_Opts (proto/criu/opts.proto).
func (f *field) option(n protowire.Number, v uint64, text string) {
	switch n {
	case 1:
		f.hex = v != 0
	case 2:
		f.address = v != 0
	case 3:
		f.flags = flagNames(text)
	case 4:
		f.device = v != 0
	case 5:
		f.oldDevice = v != 0
	case 6:
		f.words = wordsOf(text, f.name)
	case 7:
		f.quoted = text == "unix_name"
	}
}

func (p parser) enum(scope string, b []byte) error {
	e := &enum{map[int32]string{}, map[string]int32{}}
	name := ""
	err := eachField(b, func(n protowire.Number, _ uint64, b []byte) error {
		switch n {
		case 1:
			name = scope + string(b)
		case 2:
			var value string
			var number int32
			err := eachField(b, func(n protowire.Number, v uint64, b []byte) error {
				switch n {
				case 1:
					value = string(b)
				case 2:
					number = int32(v)
				}
				return nil
			})
			if _, alias := e.byNumber[number]; !alias {
				e.byNumber[number] = value
			}
			e.byName[value] = number
			return err
		}
		return nil
	})
	p.enums[name] = e
	return err
}

// eachField calls a function for every field of a message, with the number or
// the bytes that it holds.
func eachField(b []byte, do func(protowire.Number, uint64, []byte) error) error {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var value uint64
		var bytes []byte
		switch typ {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			value = uint64(v)
		case protowire.Fixed64Type:
			value, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := do(number, value, bytes); err != nil {
			return err
		}
	}
	return nil
}
