package workload

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mappingCases ask about how memory is mapped rather than what is in it.
func mappingCases() []Case {
	return []Case{
		{Name: "protections", Question: "Do mappings keep their protections, and does one without any still refuse?", program: protections},
		{Name: "guard-pages", Question: "Do guard pages made by madvise still guard?", Needs: []string{"criu/pagemap_scan_guard_pages"}, program: guardPages},
		{Name: "locked-memory", Question: "Is memory that was locked still locked?", program: lockedMemory},
		{Name: "transparent-huge-pages", Question: "Does memory that may be in huge pages keep its contents and that flag?", program: transparentHugePages},
		{Name: "madvise-flags", Question: "Do mappings keep what madvise said about forks, dumps and access?", program: madviseFlags},
		{Name: "wipe-on-fork", Question: "Is memory that is to be wiped on fork still wiped in a new child?", program: wipeOnFork},
		{Name: "stack-growth", Question: "Does a mapping that grows downwards still grow?", program: stackGrowth},
		{Name: "vdso", Question: "Does the vDSO still tell the time, and the same as the kernel?", program: vdso},
	}
}

// flagsOf are the VmFlags of a mapping (proc_pid_smaps(5)).
func flagsOf(m []byte) ([]string, error) {
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return nil, lacks("/proc/PID/smaps", err, unix.ENOENT)
	}
	start := uint64(uintptr(unsafe.Pointer(&m[0])))
	inside := false
	for _, line := range strings.Split(string(text), "\n") {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= start && start < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.Fields(flags), nil
		}
	}
	return nil, fmt.Errorf("/proc/self/smaps has no flags for %#x", start)
}

func wantFlags(flags []string, want ...string) error {
	for _, f := range want {
		if !slices.Contains(flags, f) {
			return fmt.Errorf("flags of the mapping: %v, want %v", flags, want)
		}
	}
	return nil
}

// faults tells whether a byte cannot be read.
func faults(b *byte) bool {
	_, ok := load(b)
	return !ok
}

//go:noinline
func load(b *byte) (value byte, ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { ok = recover() == nil }()
	return *b, true
}

func protections() (func() error, error) {
	kinds := []int{unix.PROT_NONE, unix.PROT_READ, unix.PROT_READ | unix.PROT_EXEC, readWrite | unix.PROT_EXEC}
	m, err := anonymous(len(kinds)*page, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	want := pattern(len(m), 1)
	copy(m, want)
	for i, p := range kinds {
		if err := unix.Mprotect(m[i*page:(i+1)*page], p); err != nil {
			return nil, fmt.Errorf("mprotect: %w", err)
		}
	}
	maps, err := unchanged(func() (string, error) {
		text, err := os.ReadFile("/proc/self/maps")
		start, end := uint64(uintptr(unsafe.Pointer(&m[0]))), uint64(uintptr(unsafe.Pointer(&m[0])))+uint64(len(m))
		out := ""
		for _, line := range strings.Split(string(text), "\n") {
			var from, to uint64
			var flags string
			if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &flags); n == 3 && from < end && to > start {
				// The neighbours may be one mapping with ours.
				out += fmt.Sprintf("%x-%x %s\n", max(from, start), min(to, end), flags)
			}
		}
		return out, err
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := maps(); err != nil {
			return err
		}
		if !faults(&m[0]) {
			return fmt.Errorf("memory without rights can be read")
		}
		if err := unix.Mprotect(m[:page], unix.PROT_READ); err != nil {
			return fmt.Errorf("mprotect: %w", err)
		}
		return same("contents", []byte(m), want)
	}, nil
}

func guardPages() (func() error, error) {
	const guardInstall = 102 // MADV_GUARD_INSTALL, Linux 6.13
	m, err := anonymous(4*page, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	copy(m, pattern(len(m), 1))
	if err := unix.Madvise(m[page:2*page], guardInstall); err != nil {
		return nil, lacks("MADV_GUARD_INSTALL", err, unix.EINVAL)
	}
	check := func() error {
		if !faults(&m[page]) {
			return fmt.Errorf("a guard page can be read")
		}
		return same("the page after it", []byte(m[2*page:]), pattern(len(m), 1)[2*page:])
	}
	return check, check()
}

func lockedMemory() (func() error, error) {
	m, err := anonymous(2*page, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	if err := unix.Mlock(m); err != nil {
		return nil, fmt.Errorf("mlock: %w", err)
	}
	copy(m, pattern(len(m), 1))
	check := func() error {
		flags, err := flagsOf(m)
		return first(err, wantFlags(flags, "lo"), same("contents", []byte(m), pattern(len(m), 1)))
	}
	return check, check()
}

func transparentHugePages() (func() error, error) {
	m, err := anonymous(2*hugePage, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	if err := unix.Madvise(m, unix.MADV_HUGEPAGE); err != nil {
		return nil, lacks("transparent huge pages", err, unix.EINVAL)
	}
	// One byte: where the kernel gives a huge page, the rest of it is zeros.
	m[hugePage] = 7
	check := func() error {
		flags, err := flagsOf(m)
		return first(err, wantFlags(flags, "hg"), same("contents", m[hugePage], byte(7)), same("what was not written", m[hugePage+1], byte(0)))
	}
	return check, check()
}

func madviseFlags() (func() error, error) {
	advice := []struct {
		advice int
		flag   string
	}{
		{unix.MADV_DONTFORK, "dc"}, {unix.MADV_DONTDUMP, "dd"}, {unix.MADV_WIPEONFORK, "wf"},
		{unix.MADV_SEQUENTIAL, "sr"}, {unix.MADV_RANDOM, "rr"},
	}
	var all [][]byte
	for _, a := range advice {
		m, err := anonymous(2*page, readWrite, unix.MAP_PRIVATE)
		if err != nil {
			return nil, err
		}
		m[0] = 1
		if err := unix.Madvise(m, a.advice); err != nil {
			return nil, fmt.Errorf("madvise %d: %w", a.advice, err)
		}
		all = append(all, m)
	}
	check := func() error {
		for i, a := range advice {
			flags, err := flagsOf(all[i])
			if err := first(err, wantFlags(flags, a.flag)); err != nil {
				return err
			}
		}
		return nil
	}
	return check, check()
}

func wipeOnFork() (func() error, error) {
	m, err := anonymous(2*page, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	copy(m, pattern(len(m), 1))
	if err := unix.Madvise(m, unix.MADV_WIPEONFORK); err != nil {
		return nil, lacks("MADV_WIPEONFORK", err, unix.EINVAL)
	}
	check := func() error {
		pid, err := fork(func() {
			for _, b := range m {
				if b != 0 {
					exit(1)
				}
			}
			exit(3)
		})
		return first(err, ended(pid, 3), same("contents", []byte(m), pattern(len(m), 1)))
	}
	return check, check()
}

func stackGrowth() (func() error, error) {
	// Out of reach of others: below a mapping that grows the kernel keeps room for
	// 256 pages, and what lies below that here cannot be accessed
	// (mm/vma.c, expand_downwards).
	const size, room = 16 * page, 16 * page
	base, err := unix.MmapPtr(-1, 0, nil, page+room+size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	top, err := unix.MmapPtr(-1, 0, unsafe.Add(base, page+room), size, readWrite, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_GROWSDOWN)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	if err := unix.MunmapPtr(unsafe.Add(base, page), room); err != nil {
		return nil, fmt.Errorf("munmap: %w", err)
	}
	m := unsafe.Slice((*byte)(top), size)
	copy(m, pattern(len(m), 1))
	return func() error {
		flags, err := flagsOf(m)
		if err := first(err, wantFlags(flags, "gd"), same("contents", m, pattern(len(m), 1))); err != nil {
			return err
		}
		for n := 1; n <= 8; n++ {
			below := (*byte)(unsafe.Add(top, -n*page))
			if faults(below) {
				return fmt.Errorf("no page comes %d below the start", n)
			}
			*below = 5
		}
		return nil
	}, nil
}

func vdso() (func() error, error) {
	check := func() error {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			return err
		}
		if !strings.Contains(string(maps), "[vdso]") {
			return fmt.Errorf("there is no vDSO")
		}
		// time.Now goes by way of the vDSO, the raw call does not.
		var kernel unix.Timespec
		_, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&kernel)), 0)
		if errno != 0 {
			return fmt.Errorf("clock_gettime: %w", errno)
		}
		if d := time.Since(time.Unix(0, kernel.Nano()).Round(0)); d < 0 || d > patience {
			return fmt.Errorf("the vDSO's clock is %v before the kernel's", d)
		}
		return nil
	}
	return check, check()
}
