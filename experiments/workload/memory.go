package workload

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func memoryCases() []Case {
	return []Case{
		{Name: "anonymous-memory", Question: "Does private memory keep its bytes, and untouched memory its zeros?", program: anonymousMemory},
		{Name: "copy-on-write", Question: "Do parent and child each keep their own version of memory that they shared at the fork?", program: copyOnWrite},
		{Name: "shared-memory", Question: "Do two processes still share anonymous memory?", program: sharedMemory},
		{Name: "memfd", Question: "Does a memory file keep contents, size, seals and mapping?", program: memfd},
		{Name: "dev-shm", Question: "Does POSIX shared memory keep its contents, seen by name and by mapping?", program: devShm},
		{Name: "sysv-shm", Question: "Does System V shared memory keep key, rights, contents and attachment?", program: sysvShm},
		{Name: "sysv-sem", Question: "Do System V semaphores keep their values?", program: sysvSem},
		{Name: "sysv-msg", Question: "Does a System V message queue keep its messages, and their order?", program: sysvMsg},
		{Name: "huge-pages", Question: "Does memory in huge pages survive?", Needs: []string{"machine/huge page"}, program: hugePages},
		{Name: "brk", Question: "Does the heap that brk made keep its end and contents?", program: brk},
		{Name: "private-file-mapping", Question: "Does a private mapping of a file keep what was changed, and show what was not?", program: privateFileMapping},
		{Name: "shared-file-mapping", Question: "Is a shared mapping still the file?", program: sharedFileMapping},
	}
}

const page = 4096 // on larger ones what is asked for is rounded up

func anonymous(length, protection, flags int) ([]byte, error) {
	m, err := unix.Mmap(-1, 0, length, protection, unix.MAP_ANONYMOUS|flags)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	return m, nil
}

const readWrite = unix.PROT_READ | unix.PROT_WRITE

func anonymousMemory() (func() error, error) {
	const size = 512 << 10
	m, err := anonymous(size, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	want := make([]byte, size)
	copy(want, pattern(128<<10, 1))
	copy(want[300<<10:], pattern(7, 2))
	copy(want[size-page:], pattern(page, 3))
	copy(m[:128<<10], want)
	copy(m[300<<10:], want[300<<10:300<<10+7])
	copy(m[size-page:], want[size-page:])
	return func() error { return same("memory", []byte(m), want) }, nil
}

func copyOnWrite() (func() error, error) {
	m, err := anonymous(16*page, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	copy(m, pattern(len(m), 1))
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	_, err = fork(func() {
		m[3*page] = 200
		l.tell(0)
		for {
			l.tell(m[int(l.hear())*page])
		}
	})
	if err != nil {
		return nil, err
	}
	if err := l.answers(1); err != nil {
		return nil, err
	}
	m[5*page] = 201
	want := bytes.Clone(m)
	return func() error {
		theirs := pattern(len(m), 1)
		theirs[3*page] = 200
		for i := range len(m) / page {
			got, err := l.ask(byte(i))
			if err := first(err, same(fmt.Sprintf("the child's page %d", i), got, theirs[i*page])); err != nil {
				return err
			}
		}
		return same("the parent's memory", []byte(m), want)
	}, nil
}

func sharedMemory() (func() error, error) {
	m, err := anonymous(4*page, readWrite, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	want := pattern(len(m), 1)
	copy(m, want)
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	if _, err := fork(func() {
		for {
			b := l.hear()
			m[2*page] = b
			l.tell(b)
		}
	}); err != nil {
		return nil, err
	}
	return func() error {
		if err := same("memory", []byte(m), want); err != nil {
			return err
		}
		_, err := l.ask(77)
		return first(err, same("what the child has written", m[2*page], byte(77)))
	}, nil
}

func memfd() (func() error, error) {
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	fd, err := unix.MemfdCreate("sealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, lacks("memfd_create", err)
	}
	want := pattern(3*page, 1)
	if err := first(unix.Ftruncate(fd, int64(len(want))), send(fd, want[:page])); err != nil {
		return nil, err
	}
	m, err := unix.Mmap(fd, 0, len(want), readWrite, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	copy(m, want)
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("add seals: %w", err)
	}
	return func() error {
		got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
		if err := first(err, same("seals", got, seals), same("mapping", []byte(m), want)); err != nil {
			return err
		}
		at, err := unix.Seek(fd, 0, unix.SEEK_CUR)
		m[0]++
		var b [1]byte
		_, err2 := unix.Pread(fd, b[:], 0)
		name, err3 := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		return first(err, err2, err3, same("position", at, int64(page)), same("what the mapping wrote", b[0], want[0]+1),
			same("grow", unix.Ftruncate(fd, 4*page), error(unix.EPERM)), same("name", name, "/memfd:sealed (deleted)"))
	}, nil
}

func devShm() (func() error, error) {
	want := pattern(2*page, 1)
	f, err := os.OpenFile("/dev/shm/named", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(want); err != nil {
		return nil, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, len(want), readWrite, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return func() error {
		if err := same("mapping", []byte(m), want); err != nil {
			return err
		}
		m[page]++
		got, err := os.ReadFile("/dev/shm/named")
		want[page]++
		return first(err, same("file", got, want))
	}, nil
}

// message is struct msgbuf, with our text.
// hugePage is the usual size of one; where that is another the probe finds none.
const hugePage = 2 << 20

func hugePages() (func() error, error) {
	m, err := anonymous(hugePage, readWrite, unix.MAP_PRIVATE|unix.MAP_HUGETLB)
	if err != nil {
		return nil, lacks("huge pages", err, unix.ENOMEM, unix.EINVAL)
	}
	want := pattern(hugePage, 1)
	copy(m, want)
	return func() error {
		flags, err := flagsOf(m)
		if err := first(err, same("memory", []byte(m), want)); err != nil {
			return err
		}
		return wantFlags(flags, "ht")
	}, nil
}

func brk() (func() error, error) {
	call := func(to uintptr) uintptr {
		r, _, _ := unix.RawSyscall(unix.SYS_BRK, to, 0, 0)
		return r
	}
	start := call(0)
	end := call(start + 4*page)
	if end != start+4*page {
		return nil, fmt.Errorf("brk: the heap ends at %#x, and not 4 pages behind %#x", end, start)
	}
	// By way of /proc: the address is none of Go's.
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	want := pattern(4*page, 1)
	if _, err := memory.WriteAt(want, int64(start)); err != nil {
		return nil, err
	}
	return func() error {
		memory, err := os.Open("/proc/self/mem")
		if err != nil {
			return err
		}
		defer memory.Close()
		got := make([]byte, len(want))
		if _, err := memory.ReadAt(got, int64(start)); err != nil {
			return err
		}
		return first(same("contents", got, want), same("end", call(0), end), same("grown end", call(end+page), end+page))
	}, nil
}
