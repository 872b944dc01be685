// Package builtin is the workload that is part of crucible: a program that holds
// so many processes, threads, descriptors, mappings, pages, timers and files, and
// on request compares all of it with what it had.
//
//	container.NewSpec(container.RunOptions{
//		Args:    builtin.Args(plan.Builtin{Memory: 64 << 20, Threads: 4}),
//		Volumes: []string{self + ":" + builtin.Path + ":ro"},
//	})
//
// In the container it says [Ready]; at SIGUSR1 it looks at everything and says
// [Checked], or what differs. With a port it is a TCP server, too, that sends back
// what it gets.
//
// It is one program for all quantities, so that each can be a factor of an
// experiment. What single kernel objects go through is asked by the cases of
// package workload.
package builtin
