// Package edit makes an image from another one, with something in it changed: the
// host name, the address, variables of the environment, the paths of volumes,
// the limits of the cgroup. An image is written once, so the result is a new one
// of the same container, which names the other and shares with it every file
// that is the same.
//
// # Words
//
// A change is one value of one file, before and after. Changes are found and
// judged before anything is written; a note says what stays as it was, and why.
//
//	e, err := edit.New(image, edit.Options{Hostname: "db"})
//	defer e.Close()
//	for _, c := range e.Changes() {
//		fmt.Println(c) // utsns-11.img: nodename: web -> db
//	}
//	for _, n := range e.Notes() { ... }
//	made, err := e.Write(ctx, edit.WriteOptions{Command: os.Args})
//
// # What it edits
//
// Both what a restore reads and what is known to people: our own files, the
// configuration in bundle.json, and CRIU's files. In those a value is replaced in
// its place and all other bytes stay (see rewrite): there is nothing that this
// package would have to know of CRIU's to lose nothing.
//
// # What it does not do
//
// It does not look for a value in the memory of processes, but for the
// environment that the kernel gave them (proc_pid_environ(5)): a program that
// has read its host name, its address or a variable keeps what it knows.
package edit
