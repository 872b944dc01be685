package inspect

import (
	"time"

	"crucible/images"
	"crucible/images/inspect/memory"
)

// Stats is what was counted during a checkpoint, and how much memory there is.
type Stats struct {
	// CRIU is what CRIU counted. It does so at its very end, when an image of a
	// container that was stopped was whole already: then there is none.
	CRIU   *DumpStats  `json:"criu,omitempty"`
	Memory MemoryStats `json:"memory"`
}

// DumpStats is CRIU's own, stats-dump (criu/stats.c).
type DumpStats struct {
	// Freezing is the time until the tasks stood still, Frozen how long they did.
	Freezing time.Duration `json:"freezingNs"`
	Frozen   time.Duration `json:"frozenNs"`
	// MemoryDump is the time to get hold of the pages, MemoryWrite to write them.
	MemoryDump  time.Duration `json:"memoryDumpNs"`
	MemoryWrite time.Duration `json:"memoryWriteNs"`
	// Pages that were looked at; that have not changed since the parent; that
	// were written; and that stayed for a later transfer.
	Scanned  uint64 `json:"pagesScanned"`
	InParent uint64 `json:"pagesInParent"`
	Written  uint64 `json:"pagesWritten"`
	Lazy     uint64 `json:"pagesLazy"`
	// The same of memory that processes share.
	SharedScanned  uint64 `json:"sharedPagesScanned"`
	SharedInParent uint64 `json:"sharedPagesInParent"`
	SharedWritten  uint64 `json:"sharedPagesWritten"`
	// Pipes that carried the pages, and the pieces of memory in them.
	Pipes  uint64 `json:"pipes"`
	Pieces uint64 `json:"pieces"`
}

// MemoryStats is how many bytes of memory the image shows, and where they are.
type MemoryStats struct {
	PageSize uint64 `json:"pageSize"` // bytes
	// Here are the bytes in the image itself, Before those in the images that it
	// builds on; Shared of both is in shared memory.
	Here   uint64 `json:"here"`
	Before uint64 `json:"before"`
	Shared uint64 `json:"shared"`
	// Elsewhere are those that stayed with the processes for a later transfer.
	Elsewhere uint64 `json:"elsewhere,omitempty"`
}

type statsEntry struct {
	Dump *struct {
		Freezing       int64  `criu:"freezing_time"`
		Frozen         int64  `criu:"frozen_time"`
		MemDump        int64  `criu:"memdump_time"`
		MemWrite       int64  `criu:"memwrite_time"`
		Scanned        uint64 `criu:"pages_scanned"`
		InParent       uint64 `criu:"pages_skipped_parent"`
		Written        uint64 `criu:"pages_written"`
		Lazy           uint64 `criu:"pages_lazy"`
		Pipes          uint64 `criu:"page_pipes"`
		Pieces         uint64 `criu:"page_pipe_bufs"`
		SharedScanned  uint64 `criu:"shpages_scanned"`
		SharedInParent uint64 `criu:"shpages_skipped_parent"`
		SharedWritten  uint64 `criu:"shpages_written"`
	} `criu:"dump"`
}

// ReadStats reads an image's counts, also of a pre-dump's.
func ReadStats(i *images.Image) (*Stats, error) {
	s := &Stats{}
	entries, err := loadMaybe[statsEntry](&reader{i}, "stats-dump")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if d := e.Dump; d != nil {
			s.CRIU = &DumpStats{Freezing: microseconds(d.Freezing), Frozen: microseconds(d.Frozen),
				MemoryDump: microseconds(d.MemDump), MemoryWrite: microseconds(d.MemWrite),
				Scanned: d.Scanned, InParent: d.InParent, Written: d.Written, Lazy: d.Lazy, Pipes: d.Pipes, Pieces: d.Pieces,
				SharedScanned: d.SharedScanned, SharedInParent: d.SharedInParent, SharedWritten: d.SharedWritten}
		}
	}
	return s, s.readMemory(i)
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

func (s *Stats) readMemory(i *images.Image) error {
	m, err := memory.Open(i)
	if err != nil {
		return err
	}
	defer m.Close()
	s.Memory.PageSize = m.PageSize()
	add := func(space *memory.Space, err error, shared bool) error {
		if err != nil {
			return err
		}
		for _, run := range space.Runs() {
			bytes := run.Pages * m.PageSize()
			switch {
			case run.Remote:
				s.Memory.Elsewhere += bytes
			case run.Layer == 0:
				s.Memory.Here += bytes
			default:
				s.Memory.Before += bytes
			}
			if shared {
				s.Memory.Shared += bytes
			}
		}
		return nil
	}
	for _, pid := range m.Pids() {
		space, err := m.Process(pid)
		if err := add(space, err, false); err != nil {
			return err
		}
	}
	for _, id := range m.SharedIDs() {
		space, err := m.Shared(id)
		if err := add(space, err, true); err != nil {
			return err
		}
	}
	return nil
}
