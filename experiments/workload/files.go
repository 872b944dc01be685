package workload

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func fileCases() []Case {
	return []Case{
		{Name: "open-files", Question: "Do open files keep position, mode and flags?", program: openFiles},
		{Name: "shared-position", Question: "Do descriptors that share an open file, also with a child, still share its position?", program: sharedPosition},
		{Name: "open-directory", Question: "Does an open directory keep its place in the list?", program: openDirectory},
		{Name: "path-descriptor", Question: "Does a descriptor that only names a file (O_PATH) survive?", program: pathDescriptor},
		{Name: "deleted-file", Question: "Does a file that was deleted while open keep its contents?", program: deletedFile},
		{Name: "deleted-large-file", Question: "Does a deleted file of more than CRIU's one MiB survive?", program: deletedLargeFile},
		{Name: "deleted-name", Question: "Does a deleted name of a file that has another name still lead to that file?", program: deletedName},
		{Name: "deleted-directory", Question: "Does a working directory that was deleted survive?", program: deletedDirectory},
		{Name: "nameless-file", Question: "Does a file that never had a name (O_TMPFILE) survive?", program: namelessFile},
		{Name: "device-files", Question: "Do open device files still work?", program: deviceFiles},
	}
}

// at is a descriptor's position.
func at(fd int) (int64, error) { return unix.Seek(fd, 0, unix.SEEK_CUR) }

func openFiles() (func() error, error) {
	var fds []int
	for i, flags := range []int{unix.O_RDONLY, unix.O_WRONLY | unix.O_APPEND, unix.O_RDWR | unix.O_NONBLOCK, unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOATIME, unix.O_WRONLY | unix.O_SYNC} {
		name := fmt.Sprint("/srv/open-", i)
		if err := os.WriteFile(name, pattern(100, 1), 0o644); err != nil {
			return nil, err
		}
		fd, err := unix.Open(name, flags, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
		if _, err := unix.Seek(fd, int64(10*i+3), unix.SEEK_SET); err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	look, err := unchanged(func() (string, error) {
		out := ""
		for _, fd := range fds {
			position, err := at(fd)
			flags, err2 := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			own, err3 := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			name, err4 := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err := first(err, err2, err3, err4); err != nil {
				return "", err
			}
			out += fmt.Sprintf("descriptor %d: %s at %d, flags %#o, %d\n", fd, name, position, flags, own)
		}
		return out, nil
	})
	return func() error {
		if err := first(look(), send(fds[1], []byte("end"))); err != nil {
			return err
		}
		got, err := os.ReadFile("/srv/open-1")
		return first(err, same("the file that is appended to", got, append(pattern(100, 1), "end"...)))
	}, err
}

func sharedPosition() (func() error, error) {
	if err := os.WriteFile("/srv/shared", pattern(100, 1), 0o644); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/srv/shared", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dup, err := unix.Dup(fd)
	if err != nil {
		return nil, err
	}
	other, err := unix.Open("/srv/shared", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	if _, err := fork(func() {
		for {
			to := l.hear()
			unix.RawSyscall(unix.SYS_LSEEK, uintptr(fd), uintptr(to), unix.SEEK_SET)
			l.tell(to)
		}
	}); err != nil {
		return nil, err
	}
	check := func() error {
		_, err := l.ask(42)
		mine, err2 := at(fd)
		copied, err3 := at(dup)
		own, err4 := at(other)
		return first(err, err2, err3, err4, same("position that the child has set", mine, int64(42)), same("that of the duplicate", copied, int64(42)),
			same("that of another open file", own, int64(0)))
	}
	if err := check(); err != nil {
		return nil, err
	}
	_, err = l.ask(11)
	return check, err
}

// names reads directory entries, as many as fit into a few bytes.
func names(fd, room int) ([]string, error) {
	b := make([]byte, room)
	n, err := unix.ReadDirent(fd, b)
	if err != nil {
		return nil, fmt.Errorf("getdents: %w", err)
	}
	_, _, list := unix.ParseDirent(b[:n], -1, nil)
	return list, nil
}

func openDirectory() (func() error, error) {
	const count = 20
	if err := os.Mkdir("/srv/list", 0o755); err != nil {
		return nil, err
	}
	for i := range count {
		if err := os.WriteFile(fmt.Sprintf("/srv/list/%02d", i), nil, 0o644); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Open("/srv/list", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	seen := map[string]int{}
	read := func(room int) (int, error) {
		list, err := names(fd, room)
		for _, name := range list {
			seen[name]++
		}
		return len(list), err
	}
	some, err := read(256)
	if err == nil && (some == 0 || some >= count) {
		err = fmt.Errorf("the first read gave %d entries", some)
	}
	return func() error {
		for {
			n, err := read(4096)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
		for name, times := range seen {
			if times != 1 {
				return fmt.Errorf("entry %s came %d times", name, times)
			}
		}
		return same("entries", len(seen), count)
	}, err
}

func pathDescriptor() (func() error, error) {
	if err := os.WriteFile("/srv/named", []byte("by path"), 0o644); err != nil {
		return nil, err
	}
	file, err := unix.Open("/srv/named", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir, err := unix.Open("/srv", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return func() error {
		flags, err := unix.FcntlInt(uintptr(file), unix.F_GETFL, 0)
		if err := first(err, same("O_PATH", flags&unix.O_PATH, unix.O_PATH)); err != nil {
			return err
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", file))
		var st unix.Stat_t
		return first(err, same("contents", string(text), "by path"), unix.Fstatat(dir, "named", &st, 0))
	}, nil
}

// ghost is a file that was deleted while it is open.
func deviceFiles() (func() error, error) {
	var fds []int
	for _, name := range []string{"null", "zero", "full", "urandom"} {
		fd, err := unix.Open("/dev/"+name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
		fds = append(fds, fd)
	}
	zeros, err := unix.Mmap(fds[1], 0, page, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("mmap /dev/zero: %w", err)
	}
	zeros[5] = 5
	return func() error {
		b := make([]byte, 16)
		n, err := unix.Read(fds[0], b)
		zero, err2 := unix.Read(fds[1], b)
		_, full := unix.Write(fds[2], b)
		random, err3 := unix.Read(fds[3], b)
		return first(err, err2, err3, same("null", n, 0), same("zero", zero, len(b)), same("full", full, error(unix.ENOSPC)), same("urandom", random, len(b)),
			same("mapping", zeros[5]+zeros[6], byte(5)))
	}, nil
}
