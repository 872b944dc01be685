package edit

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The heads of CRIU's files (criu/include/magic.h): a common magic number and
// that of the kind.
const (
	magicCommon = 0x54564319
	magicFiles  = 0x56303138
	magicUTS    = 0x54473203
	magicMM     = 0x57492820
)

var errWire = errors.New("is no file of CRIU's that can be edited")

// rewriteEntries gives each entry of a file of CRIU's to a function and returns
// the file with what that makes of them. Only kinds without payloads behind
// their entries can be read so.
func rewriteEntries(file []byte, magic uint32, entry func([]byte) ([]byte, error)) ([]byte, error) {
	if len(file) < 8 || binary.LittleEndian.Uint32(file) != magicCommon || binary.LittleEndian.Uint32(file[4:]) != magic {
		return nil, errWire
	}
	out := append(make([]byte, 0, len(file)+64), file[:8]...)
	for rest := file[8:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, fmt.Errorf("%w: it is cut off", errWire)
		}
		n := binary.LittleEndian.Uint32(rest)
		if uint64(n) > uint64(len(rest)-4) {
			return nil, fmt.Errorf("%w: it is cut off", errWire)
		}
		made, err := entry(rest[4 : 4+n])
		if err != nil {
			return nil, err
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(len(made)))
		out = append(out, made...)
		rest = rest[4+n:]
	}
	return out, nil
}

// field is one field of a message, as it stands on the wire.
type field struct {
	number protowire.Number
	typ    protowire.Type
	value  []byte // of a string, bytes or a message: without its length
}

// number of a varint.
func (f field) varint() uint64 {
	v, _ := protowire.ConsumeVarint(f.value)
	return v
}

// rewrite gives each field of a message to a function, which may change its
// value; all others stay byte for byte.
func rewrite(message []byte, change func(*field) error) ([]byte, error) {
	out := make([]byte, 0, len(message)+16)
	for rest := message; len(rest) > 0; {
		number, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, fmt.Errorf("%w: %w", errWire, protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(number, typ, rest[n:])
		if size < 0 {
			return nil, fmt.Errorf("%w: %w", errWire, protowire.ParseError(size))
		}
		f := field{number, typ, rest[n : n+size]}
		if typ == protowire.BytesType {
			f.value, _ = protowire.ConsumeBytes(f.value)
		}
		if err := change(&f); err != nil {
			return nil, err
		}
		out = protowire.AppendTag(out, f.number, f.typ)
		if f.typ == protowire.BytesType {
			out = protowire.AppendBytes(out, f.value)
		} else {
			out = append(out, f.value...)
		}
		rest = rest[n+size:]
	}
	return out, nil
}

// fields reads a message without changing it.
func fields(message []byte, see func(field)) error {
	_, err := rewrite(message, func(f *field) error {
		see(*f)
		return nil
	})
	return err
}
