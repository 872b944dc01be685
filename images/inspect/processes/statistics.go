package processes

import "crucible/proto/imagepb"

// Count fills in how much there is of what a record lists.
func Count(p *imagepb.Processes, s *imagepb.Statistics) {
	s.Files, s.Sockets, s.Descriptors, s.Mappings = uint32(len(p.GetFiles())), uint32(len(p.GetSockets())), 0, 0
	for _, one := range p.GetProcesses() {
		s.Descriptors += uint32(len(one.Descriptors))
		s.Mappings += uint32(len(one.Mappings))
	}
}

type statistics struct {
	Dump *struct {
		Freezing       int64  `criu:"freezing_time"`
		Frozen         int64  `criu:"frozen_time"`
		MemoryDump     int64  `criu:"memdump_time"`
		MemoryWrite    int64  `criu:"memwrite_time"`
		Paths          int64  `criu:"irmap_resolve"`
		Scanned        uint64 `criu:"pages_scanned"`
		InParent       uint64 `criu:"pages_skipped_parent"`
		Written        uint64 `criu:"pages_written"`
		Lazy           uint64 `criu:"pages_lazy"`
		Pipes          uint64 `criu:"page_pipes"`
		Buffers        uint64 `criu:"page_pipe_bufs"`
		SharedScanned  uint64 `criu:"shpages_scanned"`
		SharedInParent uint64 `criu:"shpages_skipped_parent"`
		SharedWritten  uint64 `criu:"shpages_written"`
	} `criu:"dump"`
}

// Counts are those of CRIU's in a directory of its files, or nil if it has
// written none.
func Counts(dir string) (*imagepb.CRIUCounts, error) {
	all, err := load[statistics](reader{dir: dir}, "stats-dump")
	if err != nil || len(all) == 0 || all[0].Dump == nil {
		return nil, err
	}
	d := all[0].Dump
	const us = 1000
	return &imagepb.CRIUCounts{
		FreezingNs: d.Freezing * us, FrozenNs: d.Frozen * us, MemoryDumpNs: d.MemoryDump * us, MemoryWriteNs: d.MemoryWrite * us, PathsNs: d.Paths * us,
		PagesScanned: d.Scanned, PagesInParent: d.InParent, PagesWritten: d.Written, PagesLazy: d.Lazy,
		SharedPagesScanned: d.SharedScanned, SharedPagesInParent: d.SharedInParent, SharedPagesWritten: d.SharedWritten,
		Pipes: d.Pipes, PipeBuffers: d.Buffers,
	}, nil
}
