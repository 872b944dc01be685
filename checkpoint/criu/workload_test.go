package criu

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// runWorkload is a workload's main. It reports trouble on descriptor 3, and
// that it is ready by closing it.
func runWorkload(name string) int {
	ready := os.NewFile(3, "ready")
	name, arg, _ := strings.Cut(name, ":")
	f, ok := workloads()[name]
	if !ok {
		fmt.Fprintf(ready, "no such workload")
		return 1
	}
	forever, err := f(arg)
	if err != nil {
		fmt.Fprintf(ready, "%s: %v", name, err)
		return 1
	}
	ready.Close()
	if forever != nil {
		forever()
	}
	for {
		_ = unix.Pause()
	}
}

func workloads() map[string]func(arg string) (func(), error) {
	return map[string]func(string) (func(), error){
		"idle":     func(string) (func(), error) { return nil, nil },
		"memory":   memoryWork,
		"beat":     beatWork,
		"box":      boxWork,
		"terminal": terminalWork,
		"hold": func(what string) (func(), error) {
			if f := holds()[what]; f != nil {
				return nil, f()
			}
			return nil, moreHolds()[what]()
		},
		"vfork":   vforkWork,
		"program": programWork,
	}
}

// beats is a file of counters, one for each thread of a tree.
func openBeats(path string) ([]uint64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), 512), nil
}

// beatWork is a tree of `arg` processes, each of which has two threads that
// count in the file "beats", and check meanwhile that their own memory and
// registers are what they should be.
func beatWork(arg string) (func(), error) {
	n, _ := strconv.Atoi(arg)
	beats, err := openBeats("beats")
	if err != nil {
		return nil, err
	}
	if n > 1 {
		cmd := exec.Command("/proc/self/exe")
		if cmd.Path, err = os.Executable(); err != nil {
			return nil, err
		}
		cmd.Env = []string{fmt.Sprintf("%s=beat:%d", workEnv, n-1), "GOMAXPROCS=2"}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		cmd.ExtraFiles = []*os.File{w}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		w.Close()
		if _, err := r.Read(make([]byte, 1)); err == nil {
			return nil, fmt.Errorf("child failed")
		}
		r.Close()
	}
	go beat(&beats[2*n])
	return func() { beat(&beats[2*n+1]) }, nil
}

func beat(counter *uint64) {
	pattern := make([]uint64, 1024)
	for i := range pattern {
		pattern[i] = uint64(i) * 0x9e3779b97f4a7c15
	}
	for n := uint64(1); ; n++ {
		for i, v := range pattern {
			if v != uint64(i)*0x9e3779b97f4a7c15 {
				os.Exit(42)
			}
		}
		*counter = n
		// A system call that is interrupted must be seen to be repeated.
		ts := unix.NsecToTimespec(int64(500 * time.Microsecond))
		_ = unix.Nanosleep(&ts, nil)
	}
}

// memoryWork has `arg` MiB with a pattern, and checks all of it once a
// second has passed in which it was stopped, forever.
func memoryWork(arg string) (func(), error) {
	mib, _ := strconv.Atoi(arg)
	mem, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(mem); i += 4096 {
		*(*uint64)(unsafe.Pointer(&mem[i])) = uint64(i) ^ 0xfeedface
	}
	beats, err := openBeats("beats")
	if err != nil {
		return nil, err
	}
	return func() {
		for round := uint64(1); ; round++ {
			var bad uint64
			for i := 0; i < len(mem); i += 4096 {
				if *(*uint64)(unsafe.Pointer(&mem[i])) != uint64(i)^0xfeedface {
					bad++
				}
			}
			beats[0], beats[1] = round, beats[1]+bad
			_ = syscall.Nanosleep(&syscall.Timespec{Nsec: 20e6}, nil)
		}
	}, nil
}
