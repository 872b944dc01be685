package images

import (
	"fmt"
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"crucible/proto/imagepb"
)

// strange is a field of no message of ours.
func strange(number protowire.Number) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), "from the future")
}

// fillStrangely puts a value into every field of a message and an unknown field
// into every message within, and returns where those are. One that holds itself
// is entered once.
func fillStrangely(m protoreflect.Message, in string, above ...protoreflect.FullName) (places []string) {
	m.SetUnknown(strange(9999))
	places = append(places, in)
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		if f.Message() == nil || f.IsMap() && f.MapValue().Message() == nil {
			continue
		}
		inner := string(f.Name())
		if in != "" {
			inner = in + "." + inner
		}
		name := f.Message().FullName()
		seen := false
		for _, a := range above {
			seen = seen || a == name
		}
		if o := f.ContainingOneof(); seen || o != nil && m.WhichOneof(o) != nil {
			continue // one of a oneof at a time: see TestUnknownInOneofs
		}
		below := append(above[:len(above):len(above)], name)
		switch {
		case f.IsMap():
			v := m.Mutable(f).Map().NewValue()
			places = append(places, fillStrangely(v.Message(), inner, below...)...)
			m.Mutable(f).Map().Set(mapKey(f), v)
		case f.IsList():
			v := m.Mutable(f).List().NewElement()
			places = append(places, fillStrangely(v.Message(), inner, below...)...)
			m.Mutable(f).List().Append(v)
		default:
			places = append(places, fillStrangely(m.Mutable(f).Message(), inner, below...)...)
		}
	}
	return places
}

func mapKey(f protoreflect.FieldDescriptor) protoreflect.MapKey {
	if f.MapKey().Kind() == protoreflect.StringKind {
		return protoreflect.ValueOfString("k").MapKey()
	}
	return f.MapKey().Default().MapKey()
}

// A field that this code does not know is reported and survives to be read and
// written, at every place where a message can be.
func TestUnknownEverywhere(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	written := map[string]proto.Message{}
	for _, file := range []string{Namespaces, Mounts, Processes, Timeline, Filesystem, Fingerprint, Counts} {
		m := record(file)
		for _, place := range fillStrangely(m.ProtoReflect(), "") {
			want[Unknown{File: file, In: place, Field: 9999}.String()] = true
		}
		if err := d.Put(file, m); err != nil {
			t.Fatal(err)
		}
		written[file] = m
	}
	if err := d.Write("future.pb", []byte("CRU-futu")); err != nil {
		t.Fatal(err)
	}
	want["future.pb"] = true
	m := &imagepb.Manifest{Traits: &imagepb.Traits{}, Writer: &imagepb.Writer{}}
	m.ProtoReflect().SetUnknown(strange(99))
	m.Traits.ProtoReflect().SetUnknown(strange(100))
	want["manifest.pb field 99"], want["manifest.pb field 100 of traits"] = true, true
	if _, err := d.Commit(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	i, err := s.Open("web")
	if err != nil {
		t.Fatal(err)
	}
	all, err := i.Unknown()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, u := range all {
		got[u.String()] = true
		if u.Bytes == 0 {
			t.Errorf("%s has no bytes", u)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("unknown are\n%v, want\n%v", got, want)
	}
	for file, m := range written {
		again := record(file)
		if err := i.Get(file, again); err != nil || !proto.Equal(again, m) {
			t.Errorf("%s is %v, %v, want %v", file, again, err, m)
		}
	}
}

// Only one message of a oneof can be set: each kind of namespace has its turn.
func TestUnknownInOneofs(t *testing.T) {
	o := (&imagepb.Namespace{}).ProtoReflect().Descriptor().Oneofs().ByName("detail")
	for n := range o.Fields().Len() {
		f := o.Fields().Get(n)
		one := &imagepb.Namespace{}
		places := fillStrangely(one.ProtoReflect().Mutable(f).Message(), "namespaces."+string(f.Name()))
		got := UnknownFields(Namespaces, &imagepb.Namespaces{Namespaces: []*imagepb.Namespace{one, one}})
		if len(got) != len(places) || got[0].Times != 2 {
			t.Errorf("%s: %v, want %v", f.Name(), got, places)
		}
	}
	if o.Fields().Len() < 5 {
		t.Errorf("%d kinds of namespaces", o.Fields().Len())
	}
}

func TestNothingUnknown(t *testing.T) {
	i := makeImage(t, Store{Dir: t.TempDir()}, "web", &imagepb.Manifest{})
	if all, err := i.Unknown(); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
	if got := fmt.Sprint(Unknown{File: Mounts, In: "mounts", Field: 7, Times: 3}); got != "mounts.pb field 7 of mounts (3 times)" {
		t.Error(got)
	}
}
