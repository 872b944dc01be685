package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// put writes one value into one file, in one write(2): the kernel takes each
// write for a whole command. Never O_CREAT: in a cgroup that does not have the
// file this must be ENOENT. The descriptor is not given to Go's poller, which
// has nothing to do for files like these.
func put(path, value string) error {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		_, err = unix.Write(fd, []byte(value))
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return &os.PathError{Op: "write " + strconv.Quote(value) + " to", Path: path, Err: err}
	}
	return nil
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
			continue
		case unix.ENODEV:
			// The cgroup went away between the look-up and the open.
			err = unix.ENOENT
		}
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
}

// get reads a file without its last newline.
func get(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, unix.ENODEV) {
		err = &os.PathError{Op: "read", Path: path, Err: unix.ENOENT}
	}
	return strings.TrimSuffix(string(data), "\n"), err
}

// numbers reads a file of pids. Those of processes that our pid namespace does
// not show are 0 there, and left out.
func numbers(path string) ([]int, error) {
	text, err := get(path)
	if err != nil {
		return nil, err
	}
	var all []int
	for line := range strings.Lines(text) {
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, &os.PathError{Op: "parse", Path: path, Err: err}
		}
		if n > 0 {
			all = append(all, n)
		}
	}
	return all, nil
}

// below lists a cgroup and all that are nested in it, parents first, as paths
// from it; itself is ".". One that is removed meanwhile is left out.
func below(dir string) ([]string, error) {
	var all []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if path != dir && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if !entry.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		all = append(all, rel)
		return err
	})
	return all, err
}
