// Package frame is how a message of package imagepb stands on disk. Protobuf
// itself has neither a beginning nor an end: a truncated file often parses,
// and so does a file of another kind. A frame tells them apart:
//
//	offset  size
//	0       8     magic: "CRU-" and four letters for the kind of the file
//	8       4     edition of the writer, little-endian like all that follow
//	12      4     oldest edition whose readers understand this file
//	16      8     n, length of the payload
//	24      n     payload: the message in protobuf's wire format
//	24+n    4     CRC-32C of everything before
//
// The frame never changes, whatever the edition: a reader checks it first, so
// that a damaged file is never taken for a newer one. The edition only says
// which fields the writer knew.
//
//	b, err := frame.Encode(&imagepb.Timeline{...})
//	...
//	var t imagepb.Timeline
//	if err := frame.Decode(b, &t); err != nil {
//		var fe *frame.Error
//		errors.As(err, &fe) // fe.Problem: Foreign, Damaged or Newer
//	}
//
// It knows no files and no paths; the caller adds them. A CRC finds accidents,
// not intent: digests of the files are in the manifest.
package frame
