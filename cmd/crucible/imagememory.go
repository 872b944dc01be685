package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"crucible/images/inspect/memory"
)

// memoryOptions of `crucible image memory`.
type memoryOptions struct {
	pid         *int
	span, grep  string
	output      string
	hex         bool
	context     int
	ignoreCase  bool
	count       bool
	fixedString bool
}

func newImageMemoryCommand(a *app) *cobra.Command {
	o := memoryOptions{}
	pid := 0
	c := &cobra.Command{
		Use:   "memory [flags] NAME[@N]",
		Short: "Print or search the memory in an image",
		Long: `Print the memory of a process between two addresses, --range START-END or START+SIZE
in hexadecimal, or that of a mapping by its name, such as '[heap]': as a hex dump
on a terminal or with --hex, else as it is. What is not in the image, such as the
code of a program, stops it; a hex dump says so and goes on.

--grep searches for a regular expression (Go's; see https://golang.org/s/re2syntax),
in all processes or one, and in the memory that they share. Each match is
a line PID:ADDRESS: MAPPING: TEXT; shared memory that no process maps has an ID
instead of the pid. A match does not reach over memory that was not dumped, and
one of more than 64 KiB may be missed.

--json prints an object for each match, or each part of the range.

Exit status: 0 success, 1 failure, or nothing was found, 3 no such image or process,
6 the image cannot be read.`,
		Example: `  crucible image memory --pid 1 --range 7ffd00001000-7ffd00002000 web
  crucible image memory --pid 1 --range '[heap]' -o heap web@1
  crucible image memory --grep 'BEGIN [A-Z ]*PRIVATE KEY' web`,
		Args:              exactArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			o.pid = pidFlag(c, pid)
			return runImageMemory(c.Context(), a, args[0], o)
		},
	}
	f := c.Flags()
	f.IntVarP(&pid, "pid", "p", 0, "the process, as the container numbers it")
	f.StringVar(&o.span, "range", "", "START-END or START+SIZE, hexadecimal, or the name of a mapping")
	f.StringVar(&o.grep, "grep", "", "search for a regular expression")
	f.BoolVarP(&o.fixedString, "fixed-string", "F", false, "with --grep: it is text, no expression")
	f.BoolVarP(&o.ignoreCase, "ignore-case", "i", false, "with --grep: small and capital letters are the same")
	f.BoolVarP(&o.count, "count", "c", false, "with --grep: print the number of matches only")
	f.IntVar(&o.context, "context", 24, "with --grep: bytes to show before and behind a match")
	f.StringVarP(&o.output, "output", "o", "", "write to this file, as it is (- for standard output)")
	f.BoolVar(&o.hex, "hex", false, "print a hex dump also where it is no terminal")
	a.jsonFlag(c)
	return c
}

func runImageMemory(ctx context.Context, a *app, ref string, o memoryOptions) error {
	switch {
	case o.grep == "" && o.span == "":
		return misuse("say what: --range START-END with --pid, or --grep REGEX")
	case o.span != "" && o.pid == nil:
		return misuse("--range needs --pid: addresses are those of one process")
	case o.context < 0 || o.context > 4096:
		return misuse("--context %d: must be 0 to 4096", o.context)
	}
	m, err := a.imageMemory(ref)
	if err != nil {
		return err
	}
	defer m.Close()
	from, to := uint64(0), ^uint64(0)
	if o.span != "" {
		space, err := m.AddressSpace(*o.pid)
		if err != nil {
			return err
		}
		if from, to, err = findRange(space, o.span); err != nil {
			return err
		}
		if o.grep == "" {
			return a.printMemory(ctx, space, from, to, o)
		}
	}
	return a.grepMemory(ctx, m, from, to, o)
}

// findRange reads --range.
func findRange(space *memory.AddressSpace, s string) (from, to uint64, err error) {
	start, end, minus := strings.Cut(s, "-")
	if !minus {
		var plus bool
		if start, end, plus = strings.Cut(s, "+"); !plus {
			return findMapping(space, s)
		}
	}
	from, err1 := parseHex(start)
	to, err2 := parseHex(end)
	if !minus && to <= ^from {
		to += from
	}
	if err1 != nil || err2 != nil || from >= to {
		if from, to, err := findMapping(space, s); err == nil { // a path may have a - in it
			return from, to, nil
		}
		return 0, 0, misuse("--range %q: must be START-END or START+SIZE, both hexadecimal, or a mapping such as '[heap]'", s)
	}
	return from, to, nil
}

func parseHex(s string) (uint64, error) {
	return strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "0x"), 16, 64)
}

// findMapping is the range of a mapping of that name, or of several without a
// gap: a file is mapped in parts with different permissions.
func findMapping(space *memory.AddressSpace, name string) (from, to uint64, err error) {
	for _, p := range space.Mappings {
		if p.Name != name || to != 0 && p.Start != to {
			continue
		}
		if to == 0 {
			from = p.Start
		}
		to = p.End
	}
	if to == 0 {
		return 0, 0, misuse("--range %q: process %d has no such mapping: see crucible image maps", name, space.Pid)
	}
	return from, to, nil
}

// memoryPart is a part of a range in `crucible image memory --json`.
type memoryPart struct {
	Pid     int    `json:"pid"`
	Start   string `json:"start"` // hexadecimal, with 0x
	Size    uint64 `json:"size"`  // bytes
	State   string `json:"state"` // see package memory
	Mapping string `json:"mapping,omitempty"`
	Data    []byte `json:"data,omitempty"` // base64; not of zeros
}

// printMemory prints a range in one of three forms.
func (a *app) printMemory(ctx context.Context, space *memory.AddressSpace, from, to uint64, o memoryOptions) error {
	parts, err := space.Parts(from, to)
	if err != nil {
		return err
	}
	asHex := o.output == "" && (o.hex || term.IsTerminal(int(a.stdout.Fd())))
	if !asHex && !a.json {
		for _, p := range parts {
			if p.State != memory.Dumped && p.State != memory.Zeros {
				return &notInImageError{space.Pid, p}
			}
		}
	}
	out, err := a.outputOr(ctx, o.output)
	if err != nil {
		return err
	}
	return out.finish(writeMemory(ctx, out, space.Pid, parts, asHex, a.json))
}

// outputOr is output for what a terminal can show, too, where no file is named.
func (a *app) outputOr(ctx context.Context, name string) (*output, error) {
	if name == "" {
		return &output{ctx, a.stdout, ""}, nil
	}
	return a.output(ctx, name)
}

func writeMemory(ctx context.Context, out io.Writer, pid int, parts []memory.Part, asHex, asJSON bool) error {
	dump := hexDump{out: out}
	for _, p := range parts {
		known := p.State == memory.Dumped || p.State == memory.Zeros
		switch {
		case asJSON && p.State != memory.Dumped:
			if err := json.NewEncoder(out).Encode(jsonPart(pid, p, 0, p.Size, nil)); err != nil {
				return err
			}
			continue
		case asHex && !known:
			if err := dump.note(p.Addr, p.Size, whereItIs(p)); err != nil {
				return err
			}
			continue
		}
		err := eachBlock(ctx, p, func(offset uint64, b []byte) error {
			switch {
			case asJSON:
				return json.NewEncoder(out).Encode(jsonPart(pid, p, offset, uint64(len(b)), b))
			case asHex:
				return dump.write(p.Addr+offset, b)
			}
			_, err := out.Write(b)
			return err
		})
		if err != nil {
			return err
		}
	}
	return dump.end()
}

func jsonPart(pid int, p memory.Part, offset, size uint64, data []byte) memoryPart {
	row := memoryPart{Pid: pid, Start: hexAddr(p.Addr + offset), Size: size, State: string(p.State), Data: data}
	if p.Mapping != nil {
		row.Mapping = p.Mapping.What()
	}
	return row
}

// eachBlock reads a part in blocks.
func eachBlock(ctx context.Context, p memory.Part, do func(offset uint64, b []byte) error) error {
	buf := make([]byte, min(p.Size, 64<<10))
	for at := uint64(0); at < p.Size; {
		b := buf[:min(p.Size-at, uint64(len(buf)))]
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := p.ReadAt(b, int64(at)); err != nil {
			return err
		}
		if err := do(at, b); err != nil {
			return err
		}
		at += uint64(len(b))
	}
	return nil
}

// whereItIs says where memory is that is not in the image.
func whereItIs(p memory.Part) string {
	switch {
	case p.State == memory.Unmapped:
		return "nothing is mapped"
	case p.State == memory.Remote:
		return "it was sent after the processes"
	case p.Mapping != nil && p.Mapping.Kind == memory.File:
		return "it is what the file " + p.Mapping.Name + " has there"
	}
	return "the kernel makes it"
}

// notInImageError is memory that cannot be printed.
type notInImageError struct {
	pid  int
	part memory.Part
}

func (e *notInImageError) Error() string {
	return fmt.Sprintf("memory %x-%x of process %d: it is not in the image: %s", e.part.Addr, e.part.Addr+e.part.Size, e.pid, printable(whereItIs(e.part)))
}
func (e *notInImageError) Hint() string {
	return "`crucible image maps` shows what is in it; --hex prints what there is and says what is missing"
}
