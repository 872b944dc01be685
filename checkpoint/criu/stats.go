package criu

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/checkpoint-restore/go-criu/v6/stats"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// DumpStats is what CRIU counted during a dump. Its Frozen begins when all
// tasks are stopped by ptrace(2), and does not see a group that was frozen
// before (criu/seize.c: collect_pstree, criu/cr-dump.c: cr_dump_finish).
type DumpStats struct {
	Freezing  time.Duration // stopping the tasks
	Frozen    time.Duration // from then until they were let go, or killed
	MemDump   time.Duration // taking their memory, which includes
	MemWrite  time.Duration // writing it
	Irmap     time.Duration // looking for the paths of inotify watches
	Scanned   uint64        // pages looked at,
	InParent  uint64        // left out because an older image has them,
	Written   uint64        // and written
	Lazy      uint64        // left for later
	ShmemSeen uint64        // the same of shared memory
	ShmemKept uint64
	ShmemOut  uint64
}

// RestoreStats is what CRIU counted during a restore.
type RestoreStats struct {
	Forking  time.Duration // making the tasks
	Restore  time.Duration // all until the memory is in place; not the last steps
	Compared uint64        // pages compared with the parent task's
	Shared   uint64        // of these, found equal and kept shared
	Restored uint64        // pages read from the image
}

// The files are CRIU's: "stats-dump" and "stats-restore" in its work
// directory, each a service image (criu/stats.c: write_stats).
const (
	dumpStatsFile    = "stats-dump"
	restoreStatsFile = "stats-restore"
)

// ReadDumpStats reads the statistics of a dump from its work directory.
func ReadDumpStats(work *os.File) (*DumpStats, error) {
	entry, err := readStats(work, dumpStatsFile)
	if err != nil {
		return nil, err
	}
	return dumpStats(entry.GetDump()), nil
}

// ReadRestoreStats reads the statistics of a restore from its work directory.
func ReadRestoreStats(work *os.File) (*RestoreStats, error) {
	entry, err := readStats(work, restoreStatsFile)
	if err != nil {
		return nil, err
	}
	return restoreStats(entry.GetRestore()), nil
}

func readStats(work *os.File, name string) (*stats.StatsEntry, error) {
	fd, err := unix.Openat(int(work.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: work.Name() + "/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), work.Name()+"/"+name)
	defer f.Close()
	entry, err := ParseStats(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return entry, nil
}

// A statistics file is some 60 bytes; what is much longer is something else.
const maxStats = 1 << 16

// ParseStats reads one of CRIU's statistics files: two magic numbers, a
// length, a message.
func ParseStats(r io.Reader) (*stats.StatsEntry, error) {
	head := make([]byte, stats.PayloadOffset)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("statistics: %w", err)
	}
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(head[at:]) }
	if word(stats.PrimaryMagicOffset) != stats.ImgServiceMagic || word(stats.SecondaryMagicOffset) != stats.StatsMagic {
		return nil, fmt.Errorf("statistics: magic %#x %#x: not CRIU's", word(stats.PrimaryMagicOffset), word(stats.SecondaryMagicOffset))
	}
	size := word(stats.SizeOffset)
	if size > maxStats {
		return nil, fmt.Errorf("statistics: a message of %d bytes is too long", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("statistics: %w", err)
	}
	entry := &stats.StatsEntry{}
	if err := proto.Unmarshal(body, entry); err != nil {
		return nil, fmt.Errorf("statistics: %w", err)
	}
	return entry, nil
}

func dumpStats(d *stats.DumpStatsEntry) *DumpStats {
	return &DumpStats{
		Freezing: micro(d.GetFreezingTime()), Frozen: micro(d.GetFrozenTime()),
		MemDump: micro(d.GetMemdumpTime()), MemWrite: micro(d.GetMemwriteTime()), Irmap: micro(d.GetIrmapResolve()),
		Scanned: d.GetPagesScanned(), InParent: d.GetPagesSkippedParent(), Written: d.GetPagesWritten(), Lazy: d.GetPagesLazy(),
		ShmemSeen: d.GetShpagesScanned(), ShmemKept: d.GetShpagesSkippedParent(), ShmemOut: d.GetShpagesWritten(),
	}
}

func restoreStats(r *stats.RestoreStatsEntry) *RestoreStats {
	return &RestoreStats{
		Forking: micro(r.GetForkingTime()), Restore: micro(r.GetRestoreTime()),
		Compared: r.GetPagesCompared(), Shared: r.GetPagesSkippedCow(), Restored: r.GetPagesRestored(),
	}
}

func micro(us uint32) time.Duration { return time.Duration(us) * time.Microsecond }
