package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"

	"crucible/images/inspect/memory"
)

// memoryMatch is a match in `crucible image memory --grep --json`.
type memoryMatch struct {
	Pid     int    `json:"pid,omitempty"`    // 0: shared memory that no process maps
	Shared  uint64 `json:"shared,omitempty"` // its id
	Address string `json:"address"`          // hexadecimal, with 0x; of shared memory from its beginning
	Size    int    `json:"size"`             // bytes
	Mapping string `json:"mapping,omitempty"`
	Match   []byte `json:"match"` // base64
	Text    string `json:"text"`  // for people
	Before  []byte `json:"before"`
	After   []byte `json:"after"`
}

// memorySpan is memory to be searched, as a process sees it.
type memorySpan struct {
	space    *memory.Space
	from, to uint64
	process  *memory.AddressSpace // nil: no process maps it
	shared   uint64
	addr     uint64 // where the process sees from
}

func (a *app) grepMemory(ctx context.Context, m *imageMemory, from, to uint64, o memoryOptions) error {
	expr := o.grep
	if o.fixedString {
		expr = regexp.QuoteMeta(expr)
	}
	if o.ignoreCase {
		expr = "(?i)" + expr
	}
	pattern, err := memory.Compile(expr)
	if err != nil {
		return misuse("--grep: %v", err)
	}
	spans, err := m.spans(o.pid, from, to)
	if err != nil {
		return err
	}
	out, err := a.outputOr(ctx, o.output)
	if err != nil {
		return err
	}
	p := grepPrinter{out: out, json: a.json, colours: a.colours() && o.output == "", context: uint64(o.context)}
	for _, s := range spans {
		err = s.space.Search(ctx, pattern, s.from, s.to, func(found memory.Match) error {
			p.count++
			if o.count {
				return nil
			}
			return p.print(s, found)
		})
		if err != nil {
			break
		}
	}
	if o.count && err == nil {
		_, err = fmt.Fprintln(out, p.count)
	}
	if err := out.finish(err); err != nil || p.count > 0 {
		return err
	}
	return &exitError{1}
}

// spans are all memory of an image, or of one process between two addresses.
// What processes share is there once, where it is seen first.
func (m *imageMemory) spans(only *int, from, to uint64) (spans []memorySpan, err error) {
	pids, err := m.pids(only)
	if err != nil {
		return nil, err
	}
	seen := coverage{}
	for _, pid := range pids {
		more, err := m.processSpans(pid, from, to, seen)
		if err != nil {
			return nil, err
		}
		spans = append(spans, more...)
	}
	if only != nil {
		return spans, nil
	}
	for _, id := range m.SharedIDs() {
		space, err := m.Shared(id)
		if err != nil {
			return nil, err
		}
		for _, r := range seen.add(id, 0, ^uint64(0)) {
			spans = append(spans, memorySpan{space: space, from: r[0], to: r[1], shared: id, addr: r[0]})
		}
	}
	return spans, nil
}

// processSpans are those of a process, by address.
func (m *imageMemory) processSpans(pid int, from, to uint64, seen coverage) (spans []memorySpan, err error) {
	process, err := m.AddressSpace(pid)
	if err != nil {
		return nil, err
	}
	private, err := m.Process(pid)
	if err != nil {
		return nil, err
	}
	at := from
	for _, p := range process.Mappings {
		if p.Kind != memory.SharedMemory || p.End <= from || p.Start >= to {
			continue
		}
		if at < p.Start {
			spans = append(spans, memorySpan{space: private, from: at, to: p.Start, process: process, addr: at})
		}
		at = p.End
		shared, offset, err := m.Content(pid, p)
		if err != nil {
			return nil, err
		}
		lo, hi := max(from, p.Start)-p.Start, min(to, p.End)-p.Start
		for _, r := range seen.add(p.Shared, offset+lo, offset+hi) {
			spans = append(spans, memorySpan{space: shared, from: r[0], to: r[1], process: process, addr: p.Start + r[0] - offset})
		}
	}
	if at < to {
		spans = append(spans, memorySpan{space: private, from: at, to: to, process: process, addr: at})
	}
	return spans, nil
}

// coverage is which ranges of which shared memory have been seen.
type coverage map[uint64][][2]uint64

// add returns what is new of a range.
func (c coverage) add(id, from, to uint64) (fresh [][2]uint64) {
	at := from
	for _, r := range c[id] {
		if r[1] <= at || r[0] >= to {
			continue
		}
		if at < r[0] {
			fresh = append(fresh, [2]uint64{at, r[0]})
		}
		at = r[1]
	}
	if at < to {
		fresh = append(fresh, [2]uint64{at, to})
	}
	c[id] = append(c[id], fresh...)
	slices.SortFunc(c[id], func(a, b [2]uint64) int { return cmp.Compare(a[0], b[0]) })
	return fresh
}

// grepPrinter prints matches.
type grepPrinter struct {
	out           io.Writer
	json, colours bool
	context       uint64
	count         uint64
}

func (p *grepPrinter) print(s memorySpan, found memory.Match) error {
	lo := max(s.from, found.Addr-min(found.Addr, p.context))
	before := s.space.Near(lo, found.Addr, true)
	text := make([]byte, found.Len)
	if _, err := s.space.ReadAt(text, int64(found.Addr)); err != nil {
		return err
	}
	end := found.Addr + uint64(found.Len)
	after := s.space.Near(end, min(s.to, end+p.context), false)
	addr := found.Addr - s.from + s.addr
	row := memoryMatch{Address: hexAddr(addr), Size: found.Len, Match: text, Text: dots(text), Before: before, After: after, Shared: s.shared}
	if s.process != nil {
		row.Pid = s.process.Pid
		if mapping := s.process.Mapping(addr); mapping != nil {
			row.Mapping = mapping.What()
			if row.Mapping == "" {
				row.Mapping = "[anonymous]"
			}
		}
	} else {
		row.Mapping = "[shared memory]"
	}
	if p.json {
		return json.NewEncoder(p.out).Encode(row)
	}
	where := strconv.Itoa(row.Pid)
	if s.process == nil {
		where = "shared " + strconv.FormatUint(s.shared, 10)
	}
	shown := row.Text
	if p.colours {
		shown = "\x1b[1;31m" + shown + "\x1b[m"
	}
	_, err := fmt.Fprintf(p.out, "%s:%x: %s: %s%s%s\n", where, addr, printable(row.Mapping), dots(before), shown, dots(after))
	return err
}

// dots is text for a terminal.
func dots(b []byte) string {
	text := make([]byte, len(b))
	for i, c := range b {
		text[i] = visible(c)
	}
	return string(text)
}
