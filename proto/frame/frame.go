package frame

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"crucible/proto/imagepb"
)

// Edition is what this code writes, and the newest that it reads. When it is
// raised, the rules at the head of manifest.proto say.
const Edition = 1

// Oldest is the oldest edition whose readers understand what this code writes,
// if it has nothing in it that only newer ones know: a manifest's min_reader
// says then what an image needs.
const Oldest = 1

const (
	headerLen = 24
	minLen    = headerLen + 4
	magicLen  = 8
	family    = "CRU-"
)

// Encode returns m in its frame.
func Encode(m proto.Message) ([]byte, error) {
	magic, err := magicOf(m)
	if err != nil {
		return nil, err
	}
	// Deterministic: the same message gives the same file, so that two images
	// can be compared by their digests.
	opts := proto.MarshalOptions{Deterministic: true}
	b := make([]byte, headerLen, minLen+opts.Size(m))
	copy(b, magic)
	if b, err = opts.MarshalAppend(b, m); err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	binary.LittleEndian.PutUint32(b[8:], Edition)
	binary.LittleEndian.PutUint32(b[12:], Oldest)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(b)-headerLen))
	return binary.LittleEndian.AppendUint32(b, checksum(b)), nil
}

// Decode reads the frame in b into m. What is wrong with b is an *Error.
func Decode(b []byte, m proto.Message) error {
	magic, err := magicOf(m)
	if err != nil {
		return err
	}
	payload, err := open(b, magic)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(payload, m); err != nil {
		return &Error{Damaged, fmt.Sprintf("its checksum is right but its content is not: %v", err)}
	}
	return nil
}

// open checks the frame and returns what it holds.
func open(b []byte, magic string) ([]byte, error) {
	if len(b) < magicLen || string(b[:magicLen]) != magic {
		return nil, wrongMagic(b, magic)
	}
	if len(b) < minLen {
		return nil, &Error{Damaged, fmt.Sprintf("is cut off after %d bytes", len(b))}
	}
	n, have := binary.LittleEndian.Uint64(b[16:]), uint64(len(b)-minLen)
	switch {
	case n > have:
		return nil, &Error{Damaged, fmt.Sprintf("is cut off: holds %d of %d bytes", have, n)}
	case n < have:
		return nil, &Error{Damaged, fmt.Sprintf("has %d bytes behind its end", have-n)}
	}
	end := headerLen + int(n)
	if binary.LittleEndian.Uint32(b[end:]) != checksum(b[:end]) {
		return nil, &Error{Damaged, "has a wrong checksum"}
	}
	if need := binary.LittleEndian.Uint32(b[12:]); need > Edition {
		return nil, &Error{Newer, fmt.Sprintf("needs a reader of edition %d, this is edition %d", need, Edition)}
	}
	return b[headerLen:end], nil
}

// wrongMagic says what b is instead.
func wrongMagic(b []byte, magic string) error {
	switch {
	case len(b) == 0:
		return &Error{Damaged, "is empty"}
	case len(b) < magicLen && magic[:len(b)] == string(b):
		return &Error{Damaged, fmt.Sprintf("is cut off after %d bytes", len(b))}
	case len(b) >= magicLen && string(b[:len(family)]) == family:
		return &Error{Foreign, fmt.Sprintf("begins with %q, not %q: another kind of file", b[:magicLen], magic)}
	}
	return &Error{Foreign, fmt.Sprintf("begins with %q, not %q: not a file of an image", b[:min(len(b), magicLen)], magic)}
}

func checksum(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

// magicOf names the kind of file that holds m.
func magicOf(m proto.Message) (string, error) {
	switch m.(type) {
	case *imagepb.Manifest:
		return family + "mani", nil
	case *imagepb.Namespaces:
		return family + "name", nil
	case *imagepb.Mounts:
		return family + "moun", nil
	case *imagepb.Processes:
		return family + "proc", nil
	case *imagepb.Timeline:
		return family + "time", nil
	case *imagepb.Filesystem:
		return family + "file", nil
	case *imagepb.Statistics:
		return family + "stat", nil
	case *imagepb.Fingerprint:
		return family + "fing", nil
	}
	return "", fmt.Errorf("frame %T: is not the message of a file", m)
}
