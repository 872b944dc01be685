package preflight

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// mapping is a line of /proc/PID/maps that shows a file, or something that
// poses as one.
type mapping struct {
	where string // "7f1c5a000000-7f1c5a021000", as in map_files
	dev   string // "fe:00", in hexadecimal
	ino   uint64
	name  string
}

// parseMaps reads /proc/PID/maps (proc_pid_maps(5)). Anonymous memory and the
// kernel's own areas are left out, and so is a line that shows the same file as
// the one before: a program is mapped in four or five pieces.
func parseMaps(r io.Reader) ([]mapping, error) {
	var all []mapping
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<10) // a path has up to 4 KiB, four times that when escaped
	for lines.Scan() {
		m, err := parseMapping(lines.Text())
		if err != nil {
			return nil, err
		}
		if m.name == "" || m.name[0] == '[' && m.name != "[uprobes]" {
			continue
		}
		if n := len(all); n > 0 && all[n-1].name == m.name && all[n-1].ino == m.ino && all[n-1].dev == m.dev {
			continue
		}
		all = append(all, m)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("maps: %w", err)
	}
	return all, nil
}

// parseMapping reads "00400000-00452000 r-xp 00000000 08:02 173521  /usr/bin/x".
func parseMapping(line string) (mapping, error) {
	var word [5]string
	rest := line
	for i := range word {
		var ok bool
		if word[i], rest, ok = strings.Cut(rest, " "); !ok && i < len(word)-1 {
			return mapping{}, fmt.Errorf("maps: line %q is too short", line)
		}
	}
	start, end, ok := strings.Cut(word[0], "-")
	ino, err := strconv.ParseUint(word[4], 10, 64)
	if !ok || err != nil {
		return mapping{}, fmt.Errorf("maps: line %q is not ADDRESSES MODE OFFSET DEVICE INODE NAME", line)
	}
	return mapping{where: address(start) + "-" + address(end), dev: word[3], ino: ino, name: strings.TrimLeft(rest, " ")}, nil
}

// address drops the zeros that maps has in front, and map_files has not.
func address(s string) string {
	if t := strings.TrimLeft(s, "0"); t != "" {
		return t
	}
	return "0"
}

// readMaps adds the files that are mapped, and not yet known from another
// process, to those of p.
func (r *reader) readMaps(p *process, dir int, shared *shared) error {
	all, err := file(r, dir, "maps", parseMaps)
	if err != nil {
		return err
	}
	for _, m := range all {
		if !shared.first(m) {
			continue
		}
		d := descriptor{fd: -1, role: "map", link: m.name, where: m.where, inode: inode{ino: m.ino}}
		if m.name[0] == '/' {
			if d.inode, err = r.stat(dir, "map_files/"+m.where); gone(err) {
				continue // unmapped meanwhile, or an area without a file
			} else if err != nil {
				return err
			}
		}
		p.files = append(p.files, d)
	}
	return nil
}
