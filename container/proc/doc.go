// Package proc reads what the kernel shows about processes: plain data from
// the text files below /proc/PID, see proc_pid(5) and the kernel's
// Documentation/filesystems/proc.rst.
//
// Each file has a parser that takes an [io.Reader]; most have a method of [FS]
// that opens the file of a process and parses it. Words: a process is a thread
// group and has a pid; a thread has a tid. A pid is used again once its
// process has been reaped, so that only pid and start time together name a
// process.
//
//	tree, err := proc.Root.Tree(pid) // a container, init first
//	if err != nil {
//		return err
//	}
//	for _, p := range tree.All() {
//		status, err := proc.Root.Status(p.PID)
//		if err != nil {
//			return err // fs.ErrNotExist: it has ended since
//		}
//		fmt.Println(p.PID, status.Name, status.RSS)
//	}
//
// A file is read in one go, but two files are not: what is read of a running
// process may not fit together. Freeze it first where that matters.
//
// Why not a library: prometheus/procfs (v0.23.0) compiles its regular
// expressions when the program starts, 0.34 ms and 892 allocations that each
// start of a container's init and monitor would pay for.
//
// The package does not read memory (maps, pagemap), does not send signals and
// does not know of containers. It takes from a file only what somebody here asks
// for; fields that a kernel does not show are zero.
package proc
