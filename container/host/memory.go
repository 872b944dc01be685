package host

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func memoryProbes() []probe {
	const group = "memory"
	return []probe{
		{group, "pagemap", true, askPagemap,
			"which pages a task has cannot be seen", "build the kernel with CONFIG_PROC_PAGE_MONITOR=y"},
		{group, "soft-dirty", false, askSoftDirty,
			"no incremental checkpoints, no pre-copy: a migration stops the container for as long as it takes to copy all of its memory",
			"build the kernel with CONFIG_MEM_SOFT_DIRTY=y, or migrate with lazy pages"},
		{group, "pagemap scan", false, func() answer { return verdict(tryPagemapScan(), unix.ENOTTY) },
			"page tables are read entry by entry", "Linux 6.7 or newer"},
		{group, "userfaultfd", false, askUserfaultfd,
			"no lazy pages: a restore waits for all memory", "build the kernel with CONFIG_USERFAULTFD=y"},
	}
}

// One page of ours, which no one else has seen.
func withPage(f func(page []byte) error) error {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer unix.Munmap(page)
	page[0] = 1
	return f(page)
}

// pagemapEntry reads a page's 64 bits. Documentation/admin-guide/mm/pagemap.rst
// says what they mean.
func pagemapEntry(page []byte) (uint64, error) {
	file, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var entry [8]byte
	at := int64(uintptr(unsafe.Pointer(&page[0]))) / int64(len(page)) * int64(len(entry))
	if _, err := file.ReadAt(entry[:], at); err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(entry[:]), nil
}

const (
	pagePresent   = 1 << 63
	pageSoftDirty = 1 << 55
)

func askPagemap() answer {
	var entry uint64
	err := withPage(func(page []byte) (err error) {
		entry, err = pagemapEntry(page)
		return err
	})
	if err == nil && entry&pagePresent == 0 {
		return missing("a page that was written is not shown")
	}
	return verdict(err, unix.ENOENT)
}

// TracksMemory tells, in some microseconds, whether the kernel marks a page of
// memory that was written ("soft-dirty"). If that could not be found out it is no.
func TracksMemory() bool {
	var entry uint64
	err := withPage(func(page []byte) (err error) {
		entry, err = pagemapEntry(page)
		return err
	})
	return err == nil && entry&pageSoftDirty != 0
}

// askSoftDirty writes to a page, clears the marks, and writes again. A kernel
// without CONFIG_MEM_SOFT_DIRTY takes the write to clear_refs all the same and
// never shows the bit; the marks are cleared only where there are some, since
// they are those of this whole process.
func askSoftDirty() answer {
	var steps [3]bool
	err := withPage(func(page []byte) error {
		for i := range steps {
			entry, err := pagemapEntry(page)
			if err != nil {
				return err
			}
			if steps[i] = entry&pageSoftDirty != 0; !steps[0] {
				return nil
			}
			switch i {
			case 0:
				if err := os.WriteFile("/proc/self/clear_refs", []byte("4"), 0); err != nil {
					return err
				}
			case 1:
				page[0]++
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return unknown(err)
	case !steps[0]:
		return missing("the kernel does not mark a page that was written")
	case steps != [3]bool{true, false, true}:
		return missing("marks: %v after a write, %v after clearing, %v after another write", steps[0], steps[1], steps[2])
	}
	return good("")
}

// pmScanArg is struct pm_scan_arg, include/uapi/linux/fs.h.
type pmScanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages      uint64
	categoryInverted, categoryMask, categoryAnyof, returnedValue uint64
}

func tryPagemapScan() error {
	const pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)
	return withPage(func(page []byte) error {
		file, err := os.Open("/proc/self/pagemap")
		if err != nil {
			return err
		}
		defer file.Close()
		start := uint64(uintptr(unsafe.Pointer(&page[0])))
		arg := pmScanArg{start: start, end: start + uint64(len(page))}
		arg.size = uint64(unsafe.Sizeof(arg))
		if err := ioctl(int(file.Fd()), pagemapScan, unsafe.Pointer(&arg)); err != nil {
			return fmt.Errorf("ioctl PAGEMAP_SCAN: %w", err)
		}
		return nil
	})
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return errno
	}
	return nil
}

// uffdFeatures are the events by which a page server learns what a process
// does to its own address space (ioctl_userfaultfd(2)). Lazy pages of a
// process that forks, moves or drops memory need all of them; the kernel gives
// them to cap_sys_ptrace only.
func uffdFeatures() []struct {
	bit  uint64
	name string
} {
	return []struct {
		bit  uint64
		name string
	}{
		{1 << 1, "fork"}, {1 << 2, "remap"}, {1 << 3, "remove"}, {1 << 6, "unmap"},
	}
}

func askUserfaultfd() answer {
	features, err := userfaultfdFeatures()
	if err != nil {
		return verdict(err)
	}
	var have, lack []string
	for _, feature := range uffdFeatures() {
		if features&feature.bit != 0 {
			have = append(have, feature.name)
		} else {
			lack = append(lack, feature.name)
		}
	}
	if len(lack) > 0 {
		return missing("no events for %s", strings.Join(lack, ", "))
	}
	return good("events: %s", strings.Join(have, ", "))
}

// userfaultfdFeatures asks a descriptor of its own; since Linux 5.11 the system
// call may be forbidden where /dev/userfaultfd (6.1) is not.
func userfaultfdFeatures() (uint64, error) {
	const (
		api    = 0xaa
		apiReq = 0xc018aa3f // UFFDIO_API: _IOWR(0xAA, 0x3F, struct uffdio_api)
		newReq = 0xaa00     // USERFAULTFD_IOC_NEW: _IO(0xAA, 0x00)
	)
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno == unix.EPERM {
		device, err := os.Open("/dev/userfaultfd")
		if err != nil {
			return 0, fmt.Errorf("userfaultfd: %w; %w", errno, err)
		}
		defer device.Close()
		fd, _, errno = unix.Syscall(unix.SYS_IOCTL, device.Fd(), newReq, unix.O_CLOEXEC|unix.O_NONBLOCK)
	}
	if errno != 0 {
		return 0, fmt.Errorf("userfaultfd: %w", errno)
	}
	defer unix.Close(int(fd))
	arg := struct{ api, features, ioctls uint64 }{api: api}
	if err := ioctl(int(fd), apiReq, unsafe.Pointer(&arg)); err != nil {
		return 0, fmt.Errorf("ioctl UFFDIO_API: %w", err)
	}
	return arg.features, nil
}
