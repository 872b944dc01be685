package workload

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(flags int) (f *os.File, m []byte, err error) {
	if f, err = os.Create("/srv/mapped"); err != nil {
		return nil, nil, err
	}
	if _, err := f.Write(pattern(4*page, 1)); err != nil {
		return nil, nil, err
	}
	if m, err = unix.Mmap(int(f.Fd()), 0, 4*page, readWrite, flags); err != nil {
		return nil, nil, fmt.Errorf("mmap: %w", err)
	}
	return f, m, nil
}

func privateFileMapping() (func() error, error) {
	f, m, err := mapFile(unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	copy(m[page:], "private")
	want := bytes.Clone(m)
	return func() error {
		got, err := os.ReadFile(f.Name())
		return first(err, same("mapping", []byte(m), want), same("file", got, pattern(4*page, 1)))
	}, nil
}

func sharedFileMapping() (func() error, error) {
	f, m, err := mapFile(unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	copy(m[page:], "before")
	want := bytes.Clone(m)
	return func() error {
		if err := same("mapping", []byte(m), want); err != nil {
			return err
		}
		copy(m[2*page:], "after")
		copy(want[2*page:], "after")
		got, err := os.ReadFile(f.Name())
		return first(err, same("file", got, want))
	}, nil
}
