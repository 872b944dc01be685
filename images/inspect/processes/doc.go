// Package processes fills in what an image says of its processes (processes.pb)
// from what CRIU has written of them: credentials, limits, signals, descriptors,
// sockets, mappings, timers, locks, scheduling.
//
//	var p imagepb.Processes            // as proc(5) showed them
//	err := processes.Complete(dir, &p) // dir: CRIU's files
//
//	p, err := processes.Read(image)    // complete, also of an old image
//
// # What it does not do
//
// It reads no memory (see images/inspect/memory) and no bytes that waited in a
// pipe or a socket. The meaning of each field is in proto/processes.proto.
package processes
