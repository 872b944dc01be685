package diff

import (
	"context"

	"crucible/images"
)

// Section is what a difference is about.
type Section string

const (
	Processes     Section = "processes"
	Credentials   Section = "credentials"
	Descriptors   Section = "descriptors"
	Sockets       Section = "sockets"
	Mounts        Section = "mounts"
	Namespaces    Section = "namespaces"
	Filesystem    Section = "filesystem"
	Configuration Section = "configuration"
	Memory        Section = "memory"
)

// Sections are all, in the order in which Compare finds differences.
func Sections() []Section {
	return []Section{Processes, Credentials, Descriptors, Sockets, Mounts, Namespaces, Filesystem, Configuration, Memory}
}

// Change is how two images differ in a thing.
type Change string

const (
	Added   Change = "added"   // only the second image has it
	Removed Change = "removed" // only the first one
	Changed Change = "changed"
)

// Difference is one.
type Difference struct {
	Section Section `json:"section"`
	// Process is the pid, as the container numbers it; 0: it is of them all.
	Process int    `json:"process,omitempty"`
	Change  Change `json:"change"`
	// What names the thing within its section, "fd 3".
	What string `json:"what"`
	// Fields are what is other in a thing that has changed.
	Fields []Field `json:"fields,omitempty"`
	// Pages are those of a mapping, and Ranges where they are.
	Pages  *Pages  `json:"pages,omitempty"`
	Ranges []Range `json:"ranges,omitempty"`
}

// Pages are numbers of pages.
type Pages struct {
	Changed uint64 `json:"changed"`
	Added   uint64 `json:"added"`
	Removed uint64 `json:"removed"`
	Same    uint64 `json:"same"`
}

func (p *Pages) differ() bool { return p.Changed+p.Added+p.Removed > 0 }

func (p *Pages) add(o Pages) {
	p.Changed, p.Added, p.Removed, p.Same = p.Changed+o.Changed, p.Added+o.Added, p.Removed+o.Removed, p.Same+o.Same
}

// Range is a number of pages next to each other.
type Range struct {
	Start  string `json:"start"` // hexadecimal, with 0x; where only the first image has it, in that one
	Pages  uint64 `json:"pages"`
	Change Change `json:"change"`
}

// Options of Compare. The zero value works.
type Options struct {
	// NoMemory: leave out what is in the memory. Mappings are compared.
	NoMemory bool
	// Ranges: say of each mapping which pages differ.
	Ranges bool
}

// Diff is what Compare finds.
type Diff struct {
	Differences []Difference
	// PageSize is the bytes of a page. Pages counts those of all processes, those of
	// shared memory once; all are zero if memory was left out.
	PageSize uint64
	Pages    Pages
}

// Compare compares two images, the older one first. Of one of a pre-dump, which
// holds memory only, only that is compared.
func Compare(ctx context.Context, a, b *images.Image, o Options) (*Diff, error) {
	c := &comparison{a: a, b: b, options: o, diff: &Diff{Differences: []Difference{}}}
	steps := []func(context.Context) error{c.processes, c.mounts, c.namespaces, c.filesystem, c.configuration, c.memory}
	if a.Manifest.GetTraits().GetPreDump() || b.Manifest.GetTraits().GetPreDump() {
		steps = []func(context.Context) error{c.memory}
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	c.sort()
	return c.diff, nil
}

// comparison is a call of Compare.
type comparison struct {
	a, b    *images.Image
	options Options
	diff    *Diff
}

func (c *comparison) add(d Difference) { c.diff.Differences = append(c.diff.Differences, d) }

// thing is something with a name, of a section.
type thing struct {
	what   string
	record record
}

// things compares two lists of things, and takes those with the same name for
// the same.
func (c *comparison) things(section Section, process int, a, b []thing) {
	find := func(list []thing, what string) *thing {
		for n := range list {
			if list[n].what == what {
				return &list[n]
			}
		}
		return nil
	}
	for _, t := range a {
		other := find(b, t.what)
		if other == nil {
			c.add(Difference{Section: section, Process: process, Change: Removed, What: t.what})
		} else if changed := fields(t.record, other.record); changed != nil {
			c.add(Difference{Section: section, Process: process, Change: Changed, What: t.what, Fields: changed})
		}
	}
	for _, t := range b {
		if find(a, t.what) == nil {
			c.add(Difference{Section: section, Process: process, Change: Added, What: t.what})
		}
	}
}
