package host

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// ack is an NLMSG_ERROR as the kernel sends it, with the request's header.
func ack(errno unix.Errno) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+4+unix.SizeofNlMsghdr)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(b[unix.SizeofNlMsghdr:], uint32(-int32(errno)))
	return b
}

func TestNlmsgErrors(t *testing.T) {
	long := ack(0)
	binary.NativeEndian.PutUint32(long, 1000)
	short := ack(0)
	binary.NativeEndian.PutUint32(short, 3)
	data := ack(unix.EPERM)
	binary.NativeEndian.PutUint16(data[4:], 99)
	for _, test := range []struct {
		name  string
		bytes []byte
		count int
		errno unix.Errno
		bad   bool
	}{
		{"nothing", nil, 0, 0, false},
		{"one", ack(0), 1, 0, false},
		{"two", append(ack(0), ack(0)...), 2, 0, false},
		{"a refusal", append(ack(0), ack(unix.EOPNOTSUPP)...), 1, unix.EOPNOTSUPP, true},
		{"another kind", data, 0, 0, false},
		{"too long", long, 0, 0, true},
		{"too short", short, 0, 0, true},
		{"a rest", append(ack(0), 1, 2, 3), 1, 0, false},
	} {
		count, err := nlmsgErrors(test.bytes)
		if count != test.count || (err != nil) != test.bad || test.errno != 0 && !errors.Is(err, test.errno) {
			t.Errorf("%s: %d, %v", test.name, count, err)
		}
	}
}

func FuzzNlmsgErrors(f *testing.F) {
	f.Add(append(ack(0), ack(unix.ENOENT)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if count, _ := nlmsgErrors(b); count > len(b)/unix.SizeofNlMsghdr {
			t.Errorf("%d answers in %d bytes", count, len(b))
		}
	})
}
