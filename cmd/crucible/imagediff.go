package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/images/diff"
)

func newImageDiffCommand(a *app) *cobra.Command {
	var o diff.Options
	noMemory, all := false, false
	c := &cobra.Command{
		Use:   "diff [flags] NAME[@N] NAME[@N]",
		Short: "Compare two images",
		Long: `Compare two images, usually of one container, the older one first: its processes,
their credentials, descriptors and sockets, the mounts and namespaces, the changed
files as a whole, the configuration, and the memory, page by page. + is only in
the second, - only in the first, ~ is in both and differs.

What is no difference: names that only the host and CRIU have for a thing, such
as inodes of pipes; and a page of zeros that was dumped, where the other image
does not have it.

Exit status: 0 they are the same, 1 they differ, 2 and more something went wrong:
2 failure or wrong usage, 3 no such image, 6 an image cannot be read.`,
		Example: `  crucible image diff web@1 web@2
  crucible image diff --ranges --json web@1 web@2 | jq '.differences[] | select(.section == "memory")'`,
		Args:              exactArgs(2, "the names of two images"),
		ValidArgsFunction: a.imageNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			o.NoMemory = noMemory
			return runImageDiff(c.Context(), a, args[0], args[1], o, all)
		},
	}
	c.Flags().BoolVar(&noMemory, "no-memory", false, "do not compare what is in the memory")
	c.Flags().BoolVar(&o.Ranges, "ranges", false, "say which pages differ")
	c.Flags().BoolVar(&all, "all", false, "print all fields of a thing, also where many differ")
	a.jsonFlag(c)
	return c
}

// comparesImages: its exit status is that of diff(1), where 1 says that there are
// differences.
func comparesImages(c *cobra.Command) bool {
	return c.Name() == "diff" && c.HasParent() && c.Parent().Name() == "image"
}

// diffRow is the answer of `crucible image diff --json`.
type diffRow struct {
	A           string            `json:"a"`
	B           string            `json:"b"`
	Same        bool              `json:"same"`
	Differences []diff.Difference `json:"differences"`
	PageSize    uint64            `json:"pageSize"`        // bytes
	Pages       *diff.Pages       `json:"pages,omitempty"` // of all processes
	Took        int64             `json:"tookNs"`
}

func runImageDiff(ctx context.Context, a *app, refA, refB string, o diff.Options, all bool) error {
	var both [2]*images.Image
	for n, ref := range []string{refA, refB} {
		i, err := a.images().Open(ref)
		if err != nil {
			return err
		}
		hold, err := i.Hold()
		if err != nil {
			return err
		}
		defer hold.Close()
		both[n] = i
	}
	start := time.Now()
	d, err := diff.Compare(ctx, both[0], both[1], o)
	if err != nil {
		return err
	}
	row := diffRow{A: both[0].Ref(), B: both[1].Ref(), Same: len(d.Differences) == 0, Differences: d.Differences, PageSize: d.PageSize, Took: int64(time.Since(start))}
	if !o.NoMemory {
		row.Pages = &d.Pages
	}
	err = a.print(a.json, row, func() error { return row.text(a.stdout, all) })
	if err == nil && !row.Same {
		err = &exitError{1}
	}
	return err
}

// fewFields is how many fields are shown of a thing.
const fewFields = 8

func (r *diffRow) text(out io.Writer, all bool) error {
	section, process := diff.Section(""), -1
	for _, d := range r.Differences {
		if d.Section != section {
			if section != "" {
				fmt.Fprintln(out)
			}
			fmt.Fprintf(out, "%s\n", d.Section)
			section, process = d.Section, -1
		}
		if d.Process != process && d.Process != 0 {
			fmt.Fprintf(out, "  process %d\n", d.Process)
		}
		process = d.Process
		r.difference(out, d, all)
	}
	if r.Pages != nil && r.Pages.Changed+r.Pages.Added+r.Pages.Removed > 0 {
		fmt.Fprintf(out, "  all: %s, of %d\n", pagesText(*r.Pages), r.Pages.Changed+r.Pages.Added+r.Pages.Removed+r.Pages.Same)
	}
	return nil
}

func (r *diffRow) difference(out io.Writer, d diff.Difference, all bool) {
	sign := map[diff.Change]string{diff.Added: "+", diff.Removed: "-", diff.Changed: "~"}[d.Change]
	what := shorten(printable(d.What), 74)
	if d.Pages != nil && d.Pages.Changed+d.Pages.Added+d.Pages.Removed > 0 {
		what += ": " + pagesText(*d.Pages)
	}
	fmt.Fprintf(out, "    %s %s\n", sign, what)
	for n, f := range d.Fields {
		if n == fewFields && !all && len(d.Fields) > fewFields+1 {
			fmt.Fprintf(out, "        and %d more fields (--all shows them)\n", len(d.Fields)-n)
			break
		}
		fmt.Fprintf(out, "        %s: %s -> %s\n", printable(f.Name), fieldText(f.A, all), fieldText(f.B, all))
	}
	for _, x := range d.Ranges {
		fmt.Fprintf(out, "        %s+%x %s\n", strings.TrimPrefix(x.Start, "0x"), x.Pages*r.PageSize, x.Change)
	}
}

func fieldText(s string, all bool) string {
	if s == "" {
		return "(none)"
	}
	if all {
		return printable(s)
	}
	return shorten(printable(s), 60)
}

// pagesText is "3 pages changed, 1 added".
func pagesText(p diff.Pages) string {
	var words []string
	for _, x := range []struct {
		n    uint64
		what string
	}{{p.Changed, "changed"}, {p.Added, "added"}, {p.Removed, "removed"}} {
		if x.n == 0 {
			continue
		}
		unit := ""
		if len(words) == 0 {
			unit = " pages"
			if x.n == 1 {
				unit = " page"
			}
		}
		words = append(words, fmt.Sprintf("%d%s %s", x.n, unit, x.what))
	}
	return strings.Join(words, ", ")
}
