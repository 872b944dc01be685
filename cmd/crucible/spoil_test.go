package main

import (
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/encoding/protowire"

	"crucible/images"
	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// spoil HOW IMAGE [FILE]: makes an image unusable.
func scriptSpoil(ts *testscript.TestScript, root string, args []string) {
	how, ref, file := args[0], args[1], images.Manifest
	if len(args) > 2 {
		file = args[2]
	}
	i, err := images.Store{Dir: filepath.Join(root, "images")}.Open(ref)
	ts.Check(err)
	path := filepath.Join(i.Dir(), file)
	data, err := os.ReadFile(path)
	ts.Check(err)
	switch how {
	case "truncate":
		data = data[:len(data)/2]
	case "flip":
		data[len(data)/2] ^= 4
	case "foreign":
		data = []byte("%PDF-1.4, and no image of anybody's\n")
	case "unreadable": // by anybody: it is a directory
		ts.Check(os.Remove(path))
		ts.Check(os.Mkdir(path, 0o700))
		return
	case "missing":
		ts.Check(os.Remove(path))
		return
	case "arch":
		data = edited(ts, i, func(m *imagepb.Manifest) { m.Writer.Machine = "sparc64" })
	case "future": // nothing is wrong with it
		data = edited(ts, i, func(m *imagepb.Manifest) {
			m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
		})
	case "newer":
		data = edited(ts, i, func(m *imagepb.Manifest) { m.Format, m.MinReader = frame.Edition+1, frame.Edition+1 })
	default:
		ts.Fatalf("spoil %s: unknown", how)
	}
	ts.Check(os.Remove(path)) // it is read-only
	ts.Check(os.WriteFile(path, data, 0o400))
}

func edited(ts *testscript.TestScript, i *images.Image, edit func(*imagepb.Manifest)) []byte {
	edit(i.Manifest)
	data, err := frame.Encode(i.Manifest)
	ts.Check(err)
	return data
}
