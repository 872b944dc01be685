package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/images/inspect"
)

func newImageStatsCommand(a *app) *cobra.Command {
	return a.viewed(&cobra.Command{
		Use:   "stats [flags] NAME[@N]",
		Short: "Show what was counted while an image was written",
		Long: `Show what was counted while an image was written: the times, how much memory the
image shows and where it is, and what CRIU counted. CRIU counts at its very end; of a
container that was stopped the image was whole before that, and has no such counts.

Exit status: 0 success, 3 no such image, 6 the image cannot be read.`,
		Example: "  crucible image stats web\n  crucible image stats --json web | jq .criu.pagesWritten",
	}, func(i *images.Image) error {
		s, err := inspect.ReadStats(i)
		if err != nil {
			return err
		}
		shown := imageStats{Image: i.Ref(), Duration: i.Manifest.DurationNs, Frozen: i.Manifest.FrozenNs, Files: len(i.Manifest.Files), Size: i.Size(),
			Processes: i.Manifest.GetTraits().GetProcesses(), Stats: s}
		return a.print(a.json, shown, func() error { return a.printTable(shown.table()) })
	})
}

// imageStats is the answer of `crucible image stats`.
type imageStats struct {
	Image     string `json:"image"`
	Duration  int64  `json:"durationNs"`
	Frozen    int64  `json:"frozenNs"`
	Files     int    `json:"files"`
	Size      int64  `json:"size"` // bytes, without its parent's
	Processes uint32 `json:"processes"`
	*inspect.Stats
}

func (s *imageStats) table() (t table) {
	t.add("image", s.Image)
	t.add("took", fmt.Sprintf("%s, frozen for %s", inMS(s.Duration), inMS(s.Frozen)))
	t.add("size", fmt.Sprintf("%s in %d files", formatSize(s.Size), s.Files))
	t.add("processes", s.Processes)
	m := s.Memory
	t.add("memory", fmt.Sprintf("%s here, %s in images before, %s of both shared", formatSize(int64(m.Here)), formatSize(int64(m.Before)), formatSize(int64(m.Shared))))
	if m.Elsewhere > 0 {
		t.add("", formatSize(int64(m.Elsewhere))+" stayed with the processes")
	}
	c := s.CRIU
	if c == nil {
		t.add("CRIU", "counted nothing: the container was stopped")
		return t
	}
	ms := func(d time.Duration) string { return inMS(int64(d)) }
	pages := func(n uint64) string {
		return fmt.Sprintf("%d pages (%s)", n, formatSize(int64(n*m.PageSize)))
	}
	t.add("CRIU: freezing", ms(c.Freezing))
	t.add("CRIU: frozen", ms(c.Frozen))
	t.add("CRIU: memory", fmt.Sprintf("%s to get hold of it, %s to write it", ms(c.MemoryDump), ms(c.MemoryWrite)))
	t.add("CRIU: looked at", pages(c.Scanned))
	t.add("CRIU: in parent", pages(c.InParent))
	t.add("CRIU: wrote", fmt.Sprintf("%s in %d pieces by %d pipes", pages(c.Written), c.Pieces, c.Pipes))
	if c.Lazy > 0 {
		t.add("CRIU: left", pages(c.Lazy))
	}
	if c.SharedScanned > 0 {
		t.add("CRIU: shared", fmt.Sprintf("looked at %s, wrote %s", pages(c.SharedScanned), pages(c.SharedWritten)))
	}
	return t
}
