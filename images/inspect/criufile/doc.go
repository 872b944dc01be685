// Package criufile reads and writes CRIU's own image files, the *.img in the
// criu/ directory of an image, of any CRIU up to 4.3.
//
// # Words
//
// A file is a head (one or two magic numbers), which names its kind, and
// entries. An entry is the length of a message, the message in protobuf, and for
// some kinds a payload that follows it, whose length the message says: what
// was in a pipe, say. A raw file has none of this: it is pages of memory, a tar
// archive, or what ip(8) or iptables-save(8) wrote.
//
//	type process struct {
//		Pid     uint32   `criu:"pid"`
//		Threads []uint32 `criu:"threads"`
//	}
//	processes, err := criufile.Load[process](dir + "/pstree.img")
//
//	err = criufile.Decode(ctx, os.Stdout, dir+"/pstree.img", criufile.DecodeOptions{})
//	err = criufile.Encode(ctx, file, json)  // the same bytes again
//
// # JSON
//
// It is that of CRIU's own tool crit: {"magic": "PSTREE", "entries": [...]},
// a message an object with the names that CRIU's .proto files have, enums by
// name, bytes in base64, and the payload as "extra". What crit prints as
// numbers and means as addresses in memory is "0x..." here, which crit reads,
// too, and so is a number that would lose digits in a float64. With Indent also
// flags, devices, IP addresses and states are in words, those of crit --pretty.
//
// Unlike crit, it loses nothing. A field that the schema does not have is
// "#NUMBER": {"varint": 5}, or "fixed32", "fixed64", "bytes" in base64, at its
// place among the others. A string that is no UTF-8 is {"base64": "..."}. A message
// that protobuf would write in another way today (a field twice, say) is {"@wire":
// "..."}, its bytes in base64. A file whose head is not the usual one has "head":
// "none", "common" or "service".
//
// # The schema
//
// schema.pb is what protoc makes of proto/criu/*.proto, which are CRIU's. The
// first use parses it (0.2 ms). It is not Go code and not a registry of the
// protobuf module: that would cost every start of the program, and meet the
// messages of the same names in go-criu.
//
// # What it does not do
//
// It knows how an entry is written, not what it means: see images/inspect. It
// does not read raw files.
package criufile
