package main

import (
	"encoding/hex"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// plain turns a message into what encoding/json prints well. protojson would
// make strings of 64-bit numbers and base64 of digests.
func plain(m proto.Message) map[string]any { return plainMessage(m.ProtoReflect()) }

func plainMessage(m protoreflect.Message) map[string]any {
	out := map[string]any{}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			entries := map[string]any{}
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				entries[k.String()] = plainValue(f.MapValue(), v)
				return true
			})
			out[f.JSONName()] = entries
		case f.IsList():
			list := make([]any, 0, v.List().Len())
			for i := range v.List().Len() {
				list = append(list, plainValue(f, v.List().Get(i)))
			}
			out[f.JSONName()] = list
		default:
			out[f.JSONName()] = plainValue(f, v)
		}
		return true
	})
	return out
}

func plainValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return plainMessage(v.Message())
	case protoreflect.BytesKind:
		return hex.EncodeToString(v.Bytes())
	case protoreflect.EnumKind:
		return enumWord(f.Enum(), v.Enum())
	}
	return v.Interface()
}

// enumWord is the word of NAMESPACE_KIND_PID that says something: "pid".
func enumWord(e protoreflect.EnumDescriptor, n protoreflect.EnumNumber) any {
	value := e.Values().ByNumber(n)
	if value == nil {
		return int32(n) // of a newer crucible
	}
	prefix := strings.TrimSuffix(string(e.Values().Get(0).Name()), "UNSPECIFIED")
	return strings.ToLower(strings.TrimPrefix(string(value.Name()), prefix))
}
