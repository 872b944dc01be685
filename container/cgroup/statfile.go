package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// files reads the files of one directory and keeps the first error.
type files struct {
	dir string
	err error
}

func (f *files) exists(file string) bool {
	return unix.Access(filepath.Join(f.dir, file), unix.F_OK) == nil
}

func (f *files) text(file string) string {
	text, err := get(filepath.Join(f.dir, file))
	if err != nil && f.err == nil {
		f.err = err
	}
	return text
}

// number reads a file with one number; "max" is 0.
func (f *files) number(file string) uint64 {
	text := f.text(file)
	if f.err != nil || text == "max" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		f.err = fmt.Errorf("%s: %w", filepath.Join(f.dir, file), err)
	}
	return n
}

// optional is number for a file that not every kernel has.
func (f *files) optional(file string) uint64 {
	if f.err != nil {
		return 0
	}
	n := f.number(file)
	if errors.Is(f.err, fs.ErrNotExist) {
		f.err = nil
	}
	return n
}

func (f *files) keyed(file string) map[string]uint64 {
	text := f.text(file)
	if f.err != nil {
		return nil
	}
	all, err := parseKeyed(strings.NewReader(text))
	if err != nil {
		f.err = fmt.Errorf("%s: %w", filepath.Join(f.dir, file), err)
	}
	return all
}

// io adds what a file says about devices; a kernel may lack the file.
func (f *files) io(all *[]IOStats, file string, parse func(io.Reader, func(device string) *IOStats) error) {
	if f.err != nil || !f.exists(file) {
		return
	}
	err := parse(strings.NewReader(f.text(file)), func(device string) *IOStats {
		i := slices.IndexFunc(*all, func(s IOStats) bool { return s.Device == device })
		if i < 0 {
			i = len(*all)
			*all = append(*all, IOStats{Device: device})
		}
		return &(*all)[i]
	})
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("%s: %w", filepath.Join(f.dir, file), err)
	}
}

// parseKeyed reads a "flat keyed" file: "KEY VALUE" lines (cgroup-v2.rst,
// "Format").
func parseKeyed(r io.Reader) (map[string]uint64, error) {
	all := map[string]uint64{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			return nil, fmt.Errorf("line %q is not KEY VALUE", lines.Text())
		}
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			// Some are negative for a moment, as page counters may be, and a
			// later kernel may add what is no number: not what we ask for.
			continue
		}
		all[key] = n
	}
	return all, lines.Err()
}

// parseIOStat reads v2's io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...".
func parseIOStat(r io.Reader, device func(string) *IOStats) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		// A device that is going away is a line without its number
		// (kernel commit 3607849df47822, "(unknown)").
		if len(words) < 2 || !isDevice(words[0]) {
			continue
		}
		s := device(words[0])
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				continue // "cost.usage=..." and whatever policies add
			}
			switch key {
			case "rbytes":
				s.ReadBytes = n
			case "wbytes":
				s.WriteBytes = n
			case "rios":
				s.Reads = n
			case "wios":
				s.Writes = n
			}
		}
	}
	return lines.Err()
}

func isDevice(s string) bool {
	major, minor, ok := strings.Cut(s, ":")
	_, err1 := strconv.ParseUint(major, 10, 32)
	_, err2 := strconv.ParseUint(minor, 10, 32)
	return ok && err1 == nil && err2 == nil
}

func parseBlkioBytes(r io.Reader, device func(string) *IOStats) error {
	return parseBlkio(r, func(d string, n uint64, write bool) {
		if write {
			device(d).WriteBytes = n
		} else {
			device(d).ReadBytes = n
		}
	})
}

func parseBlkioCounts(r io.Reader, device func(string) *IOStats) error {
	return parseBlkio(r, func(d string, n uint64, write bool) {
		if write {
			device(d).Writes = n
		} else {
			device(d).Reads = n
		}
	})
}

// parseBlkio reads v1's "8:0 Read 4096" lines, of which Read and Write are
// wanted; the last line is a total.
func parseBlkio(r io.Reader, set func(device string, n uint64, write bool)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 3 || !isDevice(words[0]) || words[1] != "Read" && words[1] != "Write" {
			continue
		}
		n, err := strconv.ParseUint(words[2], 10, 64)
		if err != nil {
			return fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		set(words[0], n, words[1] == "Write")
	}
	return lines.Err()
}
