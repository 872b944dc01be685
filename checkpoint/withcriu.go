package checkpoint

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"crucible/checkpoint/criu"
	"crucible/images"
)

// startCRIU starts CRIU, which then waits for a request. It holds the guard
// too: were only this command killed, the tasks must not be thawed under
// CRIU's hands.
func (d *dump) startCRIU(ctx context.Context) (*criu.Process, error) {
	hold, err := d.guard.File()
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	return d.o.CRIU.Start(ctx, criu.StartOptions{NetNS: d.ns, Hold: []*os.File{hold}})
}

// workDir is where CRIU's log stays.
func (d *dump) workDir() (*os.File, error) {
	dir := d.o.WorkDir
	if dir == "" {
		dir = d.c.Root.Logs(d.c.Name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.Open(dir)
}

// LogFile is the name of CRIU's log in its working directory.
const LogFile = "checkpoint.log"

// keepLog puts what CRIU has said and counted so far into the image. They are
// copied in the kernel, 40 KB for a container with a few processes.
func (d *dump) keepLog() error {
	work, err := d.workDir()
	if err != nil {
		return err
	}
	defer work.Close()
	for name, file := range map[string]string{LogFile: images.Log, criu.StatsFile: images.Statistics} {
		if name == criu.StatsFile && !d.o.LeaveRunning {
			continue // what is there is of an earlier dump
		}
		if err := d.keep(filepath.Join(work.Name(), name), file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// TimelineFile is where a container's last checkpoint has its timeline, in its
// directory of logs beside CRIU's: it also tells of what came after the image
// was whole.
const TimelineFile = "checkpoint.timeline"

// keepTimeline writes it.
func (d *dump) keepTimeline() {
	work, err := d.workDir()
	if err != nil {
		return
	}
	defer work.Close()
	d.line.Keep(filepath.Join(work.Name(), TimelineFile), d.p.Marks())
}

func (d *dump) keep(path, file string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := d.draft.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (d *dump) criuOptions() (o criu.DumpOptions, closeDirs func(), err error) {
	work, err := d.workDir()
	if err != nil {
		return o, nil, err
	}
	dir, err := os.Open(d.draft.CRIUDir())
	if err != nil {
		work.Close()
		return o, nil, err
	}
	need := d.report.Needs
	o = criu.DumpOptions{
		Common: criu.Common{
			Images: dir, Work: work, LogFile: LogFile, External: externalKeys(d.mounts), NetworkLock: criu.LockSkip,
			TCPEstablished: need.TCPEstablished, TCPClose: need.TCPClose, SkipInFlight: need.SkipInFlight,
			FileLocks: need.FileLocks, ShellJob: need.ShellJob, ExtUnixSockets: need.ExtUnixSockets, LinkRemap: need.LinkRemap,
			IrmapScanPaths: need.IrmapPaths, Extra: d.o.Extra, OrphanPTSMaster: d.spec.Process.Terminal,
		},
		Pid: d.c.State.Init.Pid, LeaveRunning: d.o.LeaveRunning, FreezeCgroup: d.group.FreezerPath(),
		GhostLimit: need.GhostLimit, Timeout: d.o.Timeout, TrackMemory: d.tracked,
	}
	if d.parent != nil {
		if o.Parent, err = d.draft.BuildOn(d.parent); err != nil {
			work.Close()
			dir.Close()
			return o, nil, err
		}
	}
	if d.ns == nil && need.TCPEstablished {
		// On the host's network there is no link of ours to close.
		o.NetworkLock = criu.LockNFTables
	}
	d.options = o.Words()
	return o, func() { work.Close(); dir.Close() }, nil
}

// criu has CRIU write its part. When it returns without an error the tasks are
// dead or frozen, as was asked for.
func (d *dump) criu(ctx context.Context, p *criu.Process) error {
	d.o.Progress("dump")
	d.line.Step("CRIU's own preparation", false)
	version, err := p.Version(ctx)
	if err == nil {
		err = version.Suffices()
	}
	if err != nil {
		return err
	}
	options, closeDirs, err := d.criuOptions()
	if err != nil {
		return err
	}
	defer closeDirs()
	ready := make(chan error, 1)
	go func() { ready <- d.prepare(ctx) }()
	d.prepared = sync.OnceValue(func() error { return <-ready })
	defer func() { _ = d.prepared() }() // CRIU may refuse before it asks
	ended := d.watch(p)
	defer ended()
	result, err := p.Dump(ctx, options, func(e criu.Event) error {
		switch e.Script {
		case criu.PreDump:
			if err := d.prepared(); err != nil {
				return err
			}
			d.writer.Criu = version.String()
			return d.freeze(ctx)
		case criu.PostDump:
			return d.dumped(ctx)
		}
		return nil
	})
	if err != nil {
		return criu.Refusal(err)
	}
	if d.frozen == 0 && !d.o.LeaveRunning {
		d.frozen = result.Done.Sub(d.frozenAt)
	}
	return nil
}

// orphanLimit is how long CRIU may go on without a task to dump.
const orphanLimit = 2 * time.Second

// watch ends a CRIU whose tasks were all killed by somebody else: it may wait
// for them for ever (seen with 4.2.1), and holds on to what is left of them.
// Killing CRIU is safe then, as it is not while a task lives. There is no event
// for it that cgroup v1 has, too, so the group is looked at now and then.
func (d *dump) watch(p *criu.Process) (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(orphanLimit / 8)
		defer tick.Stop()
		var empty time.Time
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			pids, err := d.group.Pids()
			switch {
			case err == nil && len(pids) > 0:
				empty = time.Time{}
			case empty.IsZero():
				empty = time.Now()
			case time.Since(empty) > orphanLimit:
				p.Kill()
				return
			}
		}
	}()
	return func() { close(done) }
}
