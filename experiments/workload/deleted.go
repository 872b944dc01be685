package workload

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func ghost(size int) (func() error, error) {
	want := pattern(size, 1)
	f, err := os.Create("/srv/ghost")
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(want); err != nil {
		return nil, err
	}
	if err := os.Remove("/srv/ghost"); err != nil {
		return nil, err
	}
	return func() error {
		got := make([]byte, size+1)
		n, _ := f.ReadAt(got, 0)
		position, err := at(int(f.Fd()))
		_, gone := os.Stat("/srv/ghost")
		return first(err, same("contents", got[:n], want), same("position", position, int64(size)), same("name is gone", os.IsNotExist(gone), true), links(f, 0))
	}, nil
}

func links(f *os.File, want int) error {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return first(err, same("links", int(st.Nlink), want))
}

func deletedFile() (func() error, error) { return ghost(10000) }

func deletedLargeFile() (func() error, error) { return ghost(1200 << 10) }

func deletedName() (func() error, error) {
	f, err := os.Create("/srv/one")
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString("two names"); err != nil {
		return nil, err
	}
	if err := first(os.Link("/srv/one", "/srv/two"), os.Remove("/srv/one")); err != nil {
		return nil, err
	}
	return func() error {
		mine, err := f.Stat()
		if err != nil {
			return err
		}
		other, err := os.Stat("/srv/two")
		if err != nil {
			return err
		}
		entries, err := filepath.Glob("/srv/[^l]*")
		return first(err, same("the same file", os.SameFile(mine, other), true), same("names", fmt.Sprint(entries), "[/srv/two]"), links(f, 1))
	}, nil
}

func deletedDirectory() (func() error, error) {
	err := first(os.Mkdir("/srv/gone", 0o755), os.Chdir("/srv/gone"), os.Remove("/srv/gone"))
	if err != nil {
		return nil, err
	}
	return func() error {
		// The system call says so of a directory without a name.
		b := make([]byte, 256)
		n, err := unix.Getcwd(b)
		_, gone := os.Stat("/srv/gone")
		if err == nil {
			return fmt.Errorf("the working directory is %q", b[:max(n-1, 0)])
		}
		return first(same("getcwd", err, error(unix.ENOENT)), same("name is gone", os.IsNotExist(gone), true))
	}, nil
}

func namelessFile() (func() error, error) {
	fd, err := unix.Open("/srv", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, lacks("O_TMPFILE", err, unix.EOPNOTSUPP)
	}
	if err := send(fd, []byte("nameless")); err != nil {
		return nil, err
	}
	return func() error {
		b := make([]byte, 20)
		n, err := unix.Pread(fd, b, 0)
		position, err2 := at(fd)
		return first(err, err2, same("contents", string(b[:max(n, 0)]), "nameless"), same("position", position, int64(8)))
	}, nil
}
