package images

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"crucible/proto/imagepb"
)

// Unknown is something in our own files of an image that this code does not
// know: a newer crucible wrote it. Nothing is lost by that, as the manifest's
// rules have it: it restores rightly, and what is read is written as it was.
type Unknown struct {
	File string `json:"file"`
	// In is the message that holds it, by the names of the fields that lead
	// there, such as "traits" or "processes.uids"; "" is the file's own.
	In string `json:"in,omitempty"`
	// Field is its number; 0: the whole file is unknown.
	Field int `json:"field,omitempty"`
	// Times is how often it is there, Bytes what it takes altogether.
	Times int `json:"times,omitempty"`
	Bytes int `json:"bytes"`
}

func (u Unknown) String() string {
	if u.Field == 0 {
		return u.File
	}
	s := fmt.Sprintf("%s field %d", u.File, u.Field)
	if u.In != "" {
		s += " of " + u.In
	}
	if u.Times > 1 {
		s += fmt.Sprintf(" (%d times)", u.Times)
	}
	return s
}

// record is an empty message of one of our own files, or nil.
func record(file string) proto.Message {
	switch file {
	case Manifest:
		return &imagepb.Manifest{}
	case Namespaces:
		return &imagepb.Namespaces{}
	case Mounts:
		return &imagepb.Mounts{}
	case Processes:
		return &imagepb.Processes{}
	case Timeline:
		return &imagepb.Timeline{}
	case Filesystem:
		return &imagepb.Filesystem{}
	case Counts:
		return &imagepb.Statistics{}
	case Fingerprint:
		return &imagepb.Fingerprint{}
	}
	return nil
}

// Unknown lists what this code does not know of the image: fields, and our own
// kind of files (*.pb beside the manifest).
func (i *Image) Unknown() ([]Unknown, error) {
	all := UnknownFields(Manifest, i.Manifest)
	var errs []error
	for _, f := range i.Manifest.Files {
		if ok, _ := path.Match("*.pb", f.Path); !ok {
			continue
		}
		m := record(f.Path)
		if m == nil {
			all = append(all, Unknown{File: f.Path, Bytes: int(f.Size)})
			continue
		}
		if err := i.Get(f.Path, m); err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, UnknownFields(f.Path, m)...)
	}
	return all, errors.Join(errs...)
}

// UnknownFields lists the fields of a message, and of all that it holds, that
// this code does not know. Each is named once, however often it is there.
func UnknownFields(file string, m proto.Message) []Unknown {
	found := map[Unknown]Unknown{}
	addUnknown(found, Unknown{File: file}, m.ProtoReflect())
	all := make([]Unknown, 0, len(found))
	for _, u := range found {
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b Unknown) int { return cmp.Or(cmp.Compare(a.In, b.In), cmp.Compare(a.Field, b.Field)) })
	return all
}

func addUnknown(found map[Unknown]Unknown, at Unknown, m protoreflect.Message) {
	for raw := m.GetUnknown(); len(raw) > 0; {
		number, _, n := protowire.ConsumeField(raw)
		if n < 0 {
			break // it was parsed before: this cannot be
		}
		raw = raw[n:]
		key := Unknown{File: at.File, In: at.In, Field: int(number)}
		u := found[key]
		found[key] = Unknown{File: at.File, In: at.In, Field: int(number), Times: u.Times + 1, Bytes: u.Bytes + n}
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		inner := at
		inner.In = string(f.Name())
		if at.In != "" {
			inner.In = at.In + "." + inner.In
		}
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					addUnknown(found, inner, v.Message())
					return true
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for n := range v.List().Len() {
				addUnknown(found, inner, v.List().Get(n).Message())
			}
		default:
			addUnknown(found, inner, v.Message())
		}
		return true
	})
}
