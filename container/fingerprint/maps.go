package fingerprint

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// mapping is a stretch of a process's memory.
type mapping struct {
	start, end uint64
	mode       string // "rw-p"
	offset     uint64 // in the file
	file       bool
	name       string
	flags      string // VmFlags
	more       []pair // fields of smaps, other than VmFlags
}

func (m *mapping) shared() bool { return strings.HasSuffix(m.mode, "s") }

func (m *mapping) has(flag string) bool { return slices.Contains(strings.Fields(m.flags), flag) }

func (m *mapping) String() string {
	s := fmt.Sprintf("to %x %s", m.end, m.mode)
	if m.file {
		s += fmt.Sprintf(" offset %x", m.offset)
	}
	return s
}

// parseSmaps reads /proc/PID/smaps (proc_pid_smaps(5)), or maps, which is the
// same with the first line of each only.
func parseSmaps(r io.Reader) (all []mapping, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<10) // a path has up to 4 KiB, four times that when escaped
	for lines.Scan() {
		line := lines.Text()
		first, _, _ := strings.Cut(line, " ")
		if strings.HasSuffix(first, ":") { // "Rss:    4 kB"
			if len(all) == 0 {
				return nil, fmt.Errorf("smaps: %q before the first mapping", line)
			}
			m, value := &all[len(all)-1], strings.Join(strings.Fields(line[len(first):]), " ")
			if first == "VmFlags:" {
				m.flags = value
			} else {
				m.more = append(m.more, pair{strings.TrimSuffix(first, ":"), value})
			}
			continue
		}
		m, err := parseMapping(line)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// parseMapping reads "00400000-00452000 r-xp 00000000 08:02 173521  /usr/bin/x".
func parseMapping(line string) (m mapping, err error) {
	var word [5]string
	rest := line
	for i := range word {
		var ok bool
		if word[i], rest, ok = strings.Cut(rest, " "); !ok && i < len(word)-1 {
			return m, fmt.Errorf("maps: line %q is too short", line)
		}
	}
	start, end, _ := strings.Cut(word[0], "-")
	bad := func(err error) (mapping, error) { return mapping{}, fmt.Errorf("maps: line %q: %w", line, err) }
	if m.start, err = strconv.ParseUint(start, 16, 64); err != nil {
		return bad(err)
	}
	if m.end, err = strconv.ParseUint(end, 16, 64); err != nil {
		return bad(err)
	}
	if m.offset, err = strconv.ParseUint(word[2], 16, 64); err != nil {
		return bad(err)
	}
	if m.end < m.start {
		return bad(fmt.Errorf("it ends before it begins"))
	}
	m.mode, m.file = word[1], word[4] != "0"
	m.name = strings.TrimLeft(rest, " ")
	return m, nil
}

// together takes mappings together that differ in nothing: the kernel keeps
// some apart that it could merge, and merges others when they are made anew
// (mm/vma.c, can_vma_merge_left; anonymous ones by what they share with a
// parent's).
func together(all []mapping) (out []mapping) {
	for _, m := range all {
		if n := len(out); n > 0 {
			last := &out[n-1]
			if last.end == m.start && last.mode == m.mode && last.name == m.name && last.file == m.file && last.flags == m.flags &&
				slices.Equal(last.more, m.more) && (!m.file || last.offset+(last.end-last.start) == m.offset) {
				last.end = m.end
				continue
			}
		}
		out = append(out, m)
	}
	return out
}

// settle leaves out of a mapping what is not recorded, so that what is left
// tells whether two belong together.
func (t *taker) settle(m *mapping) {
	const key = "process/0/map/0/" // any: the table has no numbers
	var flags []string
	for _, f := range strings.Fields(m.flags) {
		if !t.skipped(key + "flag/" + f) {
			flags = append(flags, f)
		}
	}
	m.flags = strings.Join(flags, " ")
	m.more = slices.DeleteFunc(m.more, func(p pair) bool { return t.skipped(key + p.key) })
}
