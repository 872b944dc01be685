// Package inspect shows what is in an image as one would see it in the
// container: its processes and their threads, what they have open and who has
// the other end, their sockets, their environment, and what CRIU counted.
//
//	contents, err := inspect.Read(image)
//	for _, p := range contents.Processes {
//		for _, d := range p.Descriptors {
//			fmt.Println(p.Pid, d.FD, d.File.Kind, d.File.Name())
//		}
//	}
//
// It reads CRIU's own files (criufile), and memory for what is only there, such
// as the arguments of a process (memory). Pids, descriptors, ids of users and
// paths are those of the container.
//
// # Words
//
// A file is an open file description (open(2)): descriptors of several processes
// can be of one file, and then share its position. A holder is a process
// that has a descriptor of a file.
//
// # What it does not do
//
// It reads what the checkpoint wrote in namespaces.pb and mounts.pb nowhere:
// these are plain records. It does not read what CRIU says of memory mappings,
// and it changes nothing.
package inspect
