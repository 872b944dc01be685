package criu

import (
	"context"
	"encoding/binary"
	"os"
	"time"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
	"golang.org/x/sys/unix"
)

// PreDump writes the memory of a process tree while it runs, for a later dump to
// have it as its Parent, and returns how long the tasks stood still for that: 0
// if CRIU has not said it. TrackMemory is implied; nothing comes of options that
// are not about memory.
//
// There are no events: CRIU stops the tasks by itself, maps their pages into
// pipes, clears the marks, lets the tasks go on, and then writes
// (criu/cr-dump.c: cr_pre_dump_tasks, cr_pre_dump_finish). So the tasks must not
// be frozen by the caller, for whom CRIU would keep them frozen until it has
// written; only a group that is to stay frozen is given as FreezeCgroup. Nor is
// there a point at which a cancelled context is heard.
func (p *Process) PreDump(ctx context.Context, o DumpOptions) (frozen time.Duration, err error) {
	o.TrackMemory = true
	opts, config, err := o.request()
	if err != nil {
		return 0, err
	}
	o.forgetLog()
	p.log = &o.Common
	_ = unix.Unlinkat(int(o.workDir().Fd()), StatsFile, 0)
	// SINGLE: CRIU does not wait for the dump that is to follow.
	out, err := p.request(ctx, rpc.CriuReqType_SINGLE_PRE_DUMP, opts, config, nil, 0)
	if err != nil {
		return 0, err
	}
	if !out.ok() {
		return 0, p.explain("pre-dump", out, &o.Common)
	}
	return frozenTime(o.workDir()), nil
}

// StatsFile is what CRIU counts during a dump. It leaves it in its working
// directory when all is done (criu/stats.c).
const StatsFile = "stats-dump"

// frozenTime reads how long CRIU needed to stop all tasks, and how long they
// stood still then.
func frozenTime(work *os.File) time.Duration {
	fd, err := unix.Openat(int(work.Fd()), StatsFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	f := os.NewFile(uintptr(fd), StatsFile)
	defer f.Close()
	var image [4096]byte // it has a hundred
	n, _ := f.Read(image[:])
	return parseFrozen(image[:n])
}

// parseFrozen reads the first message of the image: a stats_entry (images/stats.proto
// of CRIU), after two magic numbers and its length. The times are in microseconds.
func parseFrozen(image []byte) (sum time.Duration) {
	const head, dump, freezing, frozen = 12, 1, 1, 2
	if len(image) < head || uint64(binary.LittleEndian.Uint32(image[8:])) > uint64(len(image)-head) {
		return 0
	}
	for _, entry := range fieldsOf(image[head:head+int(binary.LittleEndian.Uint32(image[8:]))], 0) {
		if entry.number != dump {
			continue
		}
		for _, f := range fieldsOf(entry.bytes, 0) {
			if f.number == freezing || f.number == frozen {
				sum += time.Duration(f.value) * time.Microsecond
			}
		}
	}
	return sum
}
