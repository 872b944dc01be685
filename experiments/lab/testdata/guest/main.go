// Command guest does to a guest what its first argument says.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"crucible/experiments/lab"
)

func main() {
	switch os.Args[1] {
	case "exit":
		fmt.Println("out")
		fmt.Fprintln(os.Stderr, "err")
		os.WriteFile("/results/note", []byte("kept\n"), 0o644)
		os.Exit(3)
	case "panic":
		must(os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
	case "warn":
		// What lib/bug.c prints, by way of the log: no cloud kernel has lkdtm. A
		// line without its end would not be read yet.
		must(os.WriteFile("/dev/kmsg", []byte("<4>WARNING: CPU: 0 PID: 1 at kernel/planted.c:1 planted+0x0/0x1\n"), 0))
	case "hang", "sleep":
		// Nobody says any more that the guest is alive, as if the kernel ran
		// none of its tasks.
		must(syscall.Kill(os.Getppid(), syscall.SIGSTOP))
		for os.Args[1] == "hang" {
		}
		select {}
	case "count":
		runtime.LockOSThread()
		for n := range 3 {
			must(lab.Between(lab.MarkCheckpoint, func() error { spin((n + 1) * 10_000); return nil }))
			must(lab.Between(lab.MarkRestore, func() error { call((n + 1) * 10_000); return nil }))
		}
	case "files":
		for _, name := range os.Args[2:] {
			data, err := os.ReadFile(name)
			fmt.Println(name, len(data), err)
		}
	}
}

//go:noinline
func spin(n int) (sum int) {
	for i := range n {
		sum += i * sum
	}
	return sum
}

func call(n int) {
	for range n {
		syscall.Getppid()
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
