package frame

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"crucible/proto/imagepb"
)

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The frame is a promise to files that exist: a change here breaks them.
func TestBytes(t *testing.T) {
	got := hex.EncodeToString(encode(t, &imagepb.Timeline{StartedUnixNs: 1}))
	const want = "4352552d74696d65" + "01000000" + "01000000" + "0200000000000000" + "0801" + "c339a16d"
	if got != want {
		t.Errorf("frame is\n%s, want\n%s", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range []proto.Message{
		&imagepb.Manifest{Name: "web", Number: 3, Options: map[string]string{"b": "2", "a": "1"}},
		&imagepb.Namespaces{Namespaces: []*imagepb.Namespace{{Kind: imagepb.NamespaceKind_NAMESPACE_KIND_UTS,
			Detail: &imagepb.Namespace_Uts{Uts: &imagepb.UTSNamespace{Hostname: "h"}}}}},
		&imagepb.Mounts{}, &imagepb.Processes{}, &imagepb.Timeline{}, &imagepb.Filesystem{}, &imagepb.Fingerprint{},
	} {
		got := m.ProtoReflect().New().Interface()
		if err := Decode(encode(t, m), got); err != nil || !proto.Equal(got, m) {
			t.Errorf("%T: %v, %v", m, got, err)
		}
	}
	if _, err := Encode(&imagepb.Link{}); err == nil {
		t.Error("a message that is no file was encoded")
	}
}

// A newer writer's fields survive an older reader that writes again.
func TestUnknownFields(t *testing.T) {
	raw := protowire.AppendTag(nil, 500, protowire.BytesType)
	raw = protowire.AppendString(raw, "from the future")
	m := &imagepb.Manifest{Name: "web"}
	m.ProtoReflect().SetUnknown(raw)
	var old imagepb.Manifest
	if err := Decode(encode(t, m), &old); err != nil {
		t.Fatal(err)
	}
	var again imagepb.Manifest
	if err := Decode(encode(t, &old), &again); err != nil || string(again.ProtoReflect().GetUnknown()) != string(raw) {
		t.Errorf("unknown field is %x, %v", again.ProtoReflect().GetUnknown(), err)
	}
}

func TestProblems(t *testing.T) {
	good := encode(t, &imagepb.Timeline{StartedUnixNs: 1 << 40})
	reseal := func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[len(b)-4:], checksum(b[:len(b)-4]))
		return b
	}
	with := func(at int, v byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		b       []byte
		problem Problem
		text    string
	}{
		"empty":         {nil, Damaged, "is empty"},
		"part of magic": {good[:5], Damaged, "cut off after 5 bytes"},
		"part of head":  {good[:20], Damaged, "cut off after 20 bytes"},
		"cut":           {good[:len(good)-3], Damaged, "holds 4 of 7 bytes"},
		"longer":        {append(with(0, 'C'), 1, 2), Damaged, "2 bytes behind"},
		"flipped":       {with(25, 0xff), Damaged, "checksum"},
		"text":          {[]byte("#!/bin/sh\nexec true\n ........"), Foreign, `"#!/bin/s"`},
		"other kind":    {encode(t, &imagepb.Mounts{}), Foreign, "another kind"},
		"newer":         {reseal(with(12, 9)), Newer, "edition 9"},
		"newer, broken": {with(12, 9), Damaged, "checksum"},
		"garbage":       {reseal(with(24, 0xff)), Damaged, "content"},
	} {
		err := Decode(c.b, &imagepb.Timeline{})
		var fe *Error
		if !errors.As(err, &fe) || fe.Problem != c.problem || !strings.Contains(fe.Text, c.text) {
			t.Errorf("%s: %v, want %v with %q", name, err, c.problem, c.text)
		}
	}
}

// A newer edition that says that older readers will do is read.
func TestNewerButReadable(t *testing.T) {
	b := encode(t, &imagepb.Timeline{StartedUnixNs: 7})
	b[8] = 9
	binary.LittleEndian.PutUint32(b[len(b)-4:], checksum(b[:len(b)-4]))
	var m imagepb.Timeline
	if err := Decode(b, &m); err != nil || m.StartedUnixNs != 7 {
		t.Errorf("%v, %v", &m, err)
	}
}

// Every single flipped bit, and every cut, is found.
func TestEveryBit(t *testing.T) {
	good := encode(t, &imagepb.Timeline{StartedUnixNs: 1 << 40, Phases: []*imagepb.Phase{{Name: "freeze tasks"}}})
	for i := range len(good) * 8 {
		b := append([]byte(nil), good...)
		b[i/8] ^= 1 << (i % 8)
		if Decode(b, &imagepb.Timeline{}) == nil {
			t.Errorf("bit %d flipped and not noticed", i)
		}
	}
	for i := range good {
		if Decode(good[:i], &imagepb.Timeline{}) == nil {
			t.Errorf("cut at %d and not noticed", i)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := Encode(&imagepb.Manifest{Name: "web", Files: []*imagepb.File{{Path: "x", Size: 1}}})
	f.Add(b)
	f.Add([]byte("CRU-mani"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m imagepb.Manifest
		if err := Decode(b, &m); err != nil {
			var fe *Error
			if !errors.As(err, &fe) {
				t.Errorf("error is not a frame.Error: %v", err)
			}
			return
		}
		if _, err := Encode(&m); err != nil {
			t.Errorf("decoded but not encoded: %v", err)
		}
	})
}
