package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/images/inspect/memory"
	"crucible/proto/imagepb"
)

func newImageMapsCommand(a *app) *cobra.Command {
	var pid int
	c := &cobra.Command{
		Use:   "maps [flags] NAME[@N]",
		Short: "Show what the processes of an image map, and where the pages are",
		Long: `Show the mappings of each process, as /proc/PID/maps does, and where their pages
are, a number for each: HERE in this image, PARENTS in those that it builds on,
ZERO not in it as they hold zeros, FILE not in it as the file that is mapped has
them, or the kernel makes them. Memory that was sent after the processes
(restore --lazy) is REMOTE. Shared memory is shown for each process that maps it,
and counted once in the last line.

Exit status: 0 success, 3 no such image or process, 6 the image cannot be read.`,
		Example:           "  crucible image maps web\n  crucible image maps --pid 1 web@1\n  crucible image maps --json web | jq '.[].mappings[] | select(.name == \"[heap]\")'",
		Args:              exactArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			return runImageMaps(a, args[0], pidFlag(c, pid))
		},
	}
	c.Flags().IntVarP(&pid, "pid", "p", 0, "only this process, as the container numbers it")
	a.jsonFlag(c)
	return c
}

// pidFlag is the value of --pid, or nil if it was not given.
func pidFlag(c *cobra.Command, pid int) *int {
	if !c.Flags().Changed("pid") {
		return nil
	}
	return &pid
}

// imageMemory is the memory of an image for a command, which must close it. The
// image cannot be removed meanwhile.
type imageMemory struct {
	*memory.Memory
	image *images.Image
	hold  io.Closer
	names map[int]string // of processes
}

func (a *app) imageMemory(ref string) (*imageMemory, error) {
	i, err := a.images().Open(ref)
	if err != nil {
		return nil, err
	}
	hold, err := i.Hold()
	if err != nil {
		return nil, err
	}
	m, err := memory.Open(i)
	if err != nil {
		hold.Close()
		return nil, err
	}
	im := &imageMemory{m, i, hold, map[int]string{}}
	var all imagepb.Processes
	if err := i.Get(images.Processes, &all); err == nil { // only for people
		for _, p := range all.Processes {
			im.names[int(p.Pid)] = commandOf(p)
		}
	}
	return im, nil
}

func commandOf(p *imagepb.Process) string {
	if len(p.Args) == 0 {
		return "[" + p.Comm + "]"
	}
	return strings.Join(p.Args, " ")
}

func (m *imageMemory) Close() {
	_ = m.Memory.Close()
	m.hold.Close()
}

// pids are the processes that the user means: that one, or all.
func (m *imageMemory) pids(only *int) ([]int, error) {
	if only == nil {
		return m.Pids(), nil
	}
	_, err := m.Process(*only)
	return []int{*only}, err
}

// mapsRow is a process in `crucible image maps --json`.
type mapsRow struct {
	Pid      int          `json:"pid"`
	Command  string       `json:"command,omitempty"`
	PageSize uint64       `json:"pageSize"` // bytes
	Mappings []mappingRow `json:"mappings"`

	memory *memory.Memory
}

type mappingRow struct {
	Start       string   `json:"start"` // hexadecimal, with 0x
	End         string   `json:"end"`
	Size        uint64   `json:"size"` // bytes
	Permissions string   `json:"permissions"`
	Kind        string   `json:"kind"`
	Name        string   `json:"name,omitempty"`
	Offset      uint64   `json:"offset,omitempty"` // bytes
	Flags       []string `json:"flags"`
	Advice      []string `json:"advice,omitempty"`
	Pages       pagesRow `json:"pages"`

	mapping memory.Mapping
}

// pagesRow is numbers of pages.
type pagesRow struct {
	Here    uint64 `json:"here"`
	Parents uint64 `json:"parents"`
	Zero    uint64 `json:"zero"`
	File    uint64 `json:"file"`
	Remote  uint64 `json:"remote,omitempty"`
}

func (p *pagesRow) add(o pagesRow) {
	p.Here, p.Parents, p.Zero, p.File, p.Remote = p.Here+o.Here, p.Parents+o.Parents, p.Zero+o.Zero, p.File+o.File, p.Remote+o.Remote
}

func runImageMaps(a *app, ref string, only *int) error {
	m, err := a.imageMemory(ref)
	if err != nil {
		return err
	}
	defer m.Close()
	pids, err := m.pids(only)
	if err != nil {
		return err
	}
	rows := []mapsRow{}
	for _, pid := range pids {
		row := mapsRow{Pid: pid, Command: m.names[pid], PageSize: m.PageSize(), Mappings: []mappingRow{}, memory: m.Memory}
		mappings, err := m.Mappings(pid)
		if err != nil {
			return err
		}
		for _, p := range mappings {
			u, err := m.Usage(pid, p)
			if err != nil {
				return err
			}
			row.Mappings = append(row.Mappings, mappingRow{
				Start: hexAddr(p.Start), End: hexAddr(p.End), Size: p.Size(), Permissions: p.Permissions, Kind: string(p.Kind), Name: p.Name,
				Offset: p.Offset, Flags: p.FlagNames(), Advice: p.AdviceNames(), mapping: p,
				Pages: pagesRow{u.Here, u.Parents, u.Zero, u.Elsewhere, u.Remote},
			})
		}
		rows = append(rows, row)
	}
	return a.print(a.json, rows, func() error { return a.mapsTables(rows) })
}

func hexAddr(addr uint64) string { return "0x" + strconv.FormatUint(addr, 16) }

func (a *app) mapsTables(rows []mapsRow) error {
	for n, r := range rows {
		if n > 0 {
			fmt.Fprintln(a.stdout)
		}
		fmt.Fprintf(a.stdout, "process %d: %s\n", r.Pid, shorten(printable(dash(r.Command)), 60))
		if err := r.table(a.stdout); err != nil {
			return err
		}
	}
	return nil
}

// pageColumn is a column of numbers of pages.
type pageColumn struct {
	title  string
	number func(pagesRow) uint64
}

// table leaves out the columns that have nothing to say.
func (r *mapsRow) table(out io.Writer) error {
	total, size, seen := pagesRow{}, uint64(0), map[[2]uint64]bool{}
	for _, p := range r.Mappings {
		size += p.Size
		id := [2]uint64{p.mapping.Shared, p.mapping.Offset}
		if p.mapping.Kind != memory.SharedMemory || !seen[id] {
			total.add(p.Pages)
		}
		if p.mapping.Kind == memory.SharedMemory {
			seen[id] = true
		}
	}
	columns := []pageColumn{{"HERE", func(p pagesRow) uint64 { return p.Here }}, {"PARENTS", func(p pagesRow) uint64 { return p.Parents }},
		{"ZERO", func(p pagesRow) uint64 { return p.Zero }}, {"FILE", func(p pagesRow) uint64 { return p.File }},
		{"REMOTE", func(p pagesRow) uint64 { return p.Remote }}}
	columns = slices.DeleteFunc(columns, func(c pageColumn) bool {
		return c.title == "PARENTS" && r.memory.Layers() == 1 || c.title == "REMOTE" && total.Remote == 0
	})
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	line := func(addresses, perm, size string, pages *pagesRow, what string) {
		fmt.Fprintf(w, "%s\t%s\t%s\t", addresses, perm, size)
		for _, c := range columns {
			text := c.title
			if pages != nil {
				text = strconv.FormatUint(c.number(*pages), 10)
			}
			fmt.Fprintf(w, "%s\t", text)
		}
		fmt.Fprintln(w, what)
	}
	line("ADDRESSES", "PERM", "SIZE", nil, "WHAT")
	for _, p := range r.Mappings {
		line(rangeText(p.mapping), p.Permissions, formatSize(int64(p.Size)), &p.Pages, printable(p.mapping.What()))
	}
	line(fmt.Sprintf("%d mappings", len(r.Mappings)), "", formatSize(int64(size)), &total, "")
	return w.Flush()
}

// rangeText is as --range takes it. That of the vsyscall page would be too wide.
func rangeText(p memory.Mapping) string {
	if p.Start>>48 != 0 {
		return fmt.Sprintf("%x+%x", p.Start, p.Size())
	}
	return fmt.Sprintf("%08x-%08x", p.Start, p.End)
}
