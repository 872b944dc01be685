// Package imagepb is the generated Go of the .proto files beside it: the
// messages of an image directory. Their fields are documented there.
//
// A message is written to disk with package proto/frame, never bare:
//
//	b, err := frame.Encode(&imagepb.Manifest{Name: "web", Number: 3})
//	...
//	var m imagepb.Manifest
//	err = frame.Decode(b, &m)
//
// After a change of a .proto file run proto/generate.sh and commit the result.
// The package does nothing but hold data; who fills and who reads a message is
// the business of container, images, checkpoint and restore.
package imagepb
