// Command guest does to a guest what its first argument says.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
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
		// What lib/bug.c prints, by way of the log: no cloud kernel has lkdtm.
		must(os.WriteFile("/dev/kmsg", []byte("<4>WARNING: CPU: 0 PID: 1 at kernel/planted.c:1 planted+0x0/0x1"), 0))
	case "hang":
		// A real-time task without a limit leaves the only processor to nobody.
		must(os.WriteFile("/proc/sys/kernel/sched_rt_runtime_us", []byte("-1"), 0))
		runtime.LockOSThread()
		priority := int32(99)
		if _, _, errno := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, 0, 1, uintptr(unsafe.Pointer(&priority))); errno != 0 {
			panic(errno)
		}
		for {
		}
	case "files":
		for _, name := range os.Args[2:] {
			data, err := os.ReadFile(name)
			fmt.Println(name, len(data), err)
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
