package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"crucible/checkpoint"
	"crucible/checkpoint/criu"
	"crucible/container/cgroup"
	"crucible/images"
	"crucible/proto/imagepb"
)

// startCRIU starts CRIU in the container's cgroup, where the tasks that it makes
// are born then: to move one there takes the kernel up to 16 ms (see
// [cgroup.Group.Add]). It is in the cgroup namespace that the container is to
// have, too: a CRIU that leaves cgroups alone makes none.
func (j *job) startCRIU(ctx context.Context, ns *os.File) (p *criu.Process, err error) {
	start := func() error {
		return j.group.Start(func(dir *os.File) (int, error) {
			p, err = (&criu.CRIU{Path: j.a.CRIU}).Start(ctx, criu.StartOptions{NetNS: ns, Cgroup: dir})
			if err != nil {
				return 0, err
			}
			return p.Pid(), nil
		})
	}
	if !j.hasCgroupNamespace() {
		err := start()
		return p, err
	}
	err = j.m.InCgroupNamespace(start)
	return p, err
}

// hasCgroupNamespace: the container has one of its own.
func (j *job) hasCgroupNamespace() bool {
	for _, n := range j.spaces.Namespaces {
		if n.Kind == imagepb.NamespaceKind_NAMESPACE_KIND_CGROUP {
			return !n.Host
		}
	}
	return false
}

// restore has CRIU make the tasks.
func (j *job) restore(ctx context.Context, p *criu.Process) error {
	o, loader, closeAll, err := j.criuOptions(ctx)
	if err != nil {
		return err
	}
	defer closeAll()
	j.line.Step("CRIU restore", false)
	result, err := p.Restore(ctx, o, func(e criu.Event) error { return j.event(ctx, p, e) })
	if err != nil {
		if loader != nil {
			loader.Kill()
		}
		return j.blame(ctx, err)
	}
	j.line.StepAt(result.Done, "adopt the tasks", false)
	j.marks = result.Marks
	if err := j.limitRoom(); err != nil {
		return err
	}
	if j.a.Verify {
		if err := j.verifyFrozen(ctx, result.Pid); err != nil {
			return err
		}
	}
	if loader != nil {
		j.m.DropWithLoader(j.leaveView())
	}
	if err := j.m.Adopt(result.Pid, j.master); err != nil {
		return err
	}
	if err := j.m.Listen(); err != nil {
		return err
	}
	return j.deliver(ctx)
}

// limitRoom sets the limits that were left out while CRIU was in the group. It
// is gone now, and the tasks run for a moment already.
func (j *job) limitRoom() error {
	if len(cgroup.WithoutRoom(j.limits)) == len(j.limits) {
		return nil
	}
	return j.group.RestoreValues(j.limits)
}

// blame tells a CRIU that cannot restore this from one that cannot do anything,
// or is too old for us.
func (j *job) blame(ctx context.Context, err error) error {
	var failed *criu.Error
	if errors.As(err, &failed) && ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		version, broken := (&criu.CRIU{Path: j.a.CRIU}).Version(ctx)
		switch {
		case broken == nil:
			broken = version.Suffices()
		case !failed.Killed:
			broken = nil
		}
		if broken != nil {
			return broken
		}
		j.name(failed)
	}
	return criu.Refusal(err)
}

// name says what the task is called that an error is about: the log of a restore
// has no names.
func (j *job) name(e *criu.Error) {
	var all imagepb.Processes
	if e.Task != "" || e.Pid == 0 || j.image.Get(images.Processes, &all) != nil {
		return
	}
	for _, p := range all.Processes {
		if int(p.Pid) == e.Pid {
			e.Task = p.Comm
		}
	}
}

func (j *job) event(ctx context.Context, p *criu.Process, e criu.Event) error {
	switch e.Script {
	case criu.OrphanPTSMaster:
		if len(e.Files) > 0 {
			j.master, e.Files[0] = e.Files[0], nil
		}
	case criu.PostRestore:
		// The tasks exist and have not run yet: the last moment to say no.
		select {
		case err := <-j.verified:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	case criu.PreResume:
		if j.a.Verify {
			j.check.held = j.holdBack(p.Pid())
			return nil
		}
		return j.activate(ctx)
	}
	return nil
}

// quietPages is how much memory, of processes that may share it with their
// parents, CRIU may log: at most a thousand lines.
const quietPages = 4 << 20

// quiet: CRIU is to log little. At the level that has times it writes a line for
// every page of a process that may share it with its parent (criu/mem.c:
// restore_priv_vma_content), which takes as long as to restore the page.
func (j *job) quiet() bool {
	m := j.image.Manifest
	if j.a.Trace || m.GetTraits().GetProcesses() < 2 {
		return false
	}
	sum, most := uint64(0), uint64(0)
	for _, f := range m.Files {
		if images.IsPages(f.Path) {
			sum, most = sum+f.Size, max(most, f.Size)
		}
	}
	return sum-most > quietPages || m.Parent != nil // the largest may have none
}

func (j *job) criuOptions(ctx context.Context) (o criu.RestoreOptions, loader *criu.Loader, closeAll func(), err error) {
	c := j.m.Container()
	workDir := c.Root.Logs(c.Name)
	if err := os.MkdirAll(workDir, 0o700); err != nil {
		return o, nil, nil, err
	}
	work, err := os.Open(workDir)
	if err != nil {
		return o, nil, nil, err
	}
	dir, undo, err := j.openImages()
	if err != nil {
		work.Close()
		return o, nil, nil, err
	}
	closeAll = func() { work.Close(); dir.Close(); undo() }
	manifest := j.image.Manifest
	o = criu.RestoreOptions{
		Common: criu.Common{
			Images: dir, Work: work, LogFile: LogFile, Quiet: j.quiet(), NetworkLock: criu.LockSkip,
			TCPEstablished: true, TCPClose: j.a.TCPClose, FileLocks: true, ShellJob: manifest.Options["shell-job"] == "true",
			ExtUnixSockets: manifest.Options["ext-unix-sk"] == "true", LazyPages: j.a.Lazy, Extra: j.a.Extra, OrphanPTSMaster: manifest.GetTraits().GetTerminal(),
		},
		Root: c.Rootfs(), Sibling: true,
	}
	for key, path := range checkpoint.Externals(&j.mounts, j.m.Places()) {
		o.External = append(o.External, fmt.Sprintf("mnt[%s]:%s", key, path))
	}
	if ns, _ := j.m.NetNS(); ns == nil && manifest.GetTraits().GetEstablishedTcp() {
		o.NetworkLock = criu.LockNFTables
	}
	if !j.a.Lazy {
		return o, nil, closeAll, nil
	}
	// Its own way to the images does not end with the restore.
	images, err := os.Open(j.view.CRIUDir())
	if err == nil {
		_, lock := j.view.Temporary()
		loader, err = (&criu.CRIU{Path: j.a.CRIU}).LazyPages(ctx, images, work, j.m.SetLoader, j.hold, lock)
		images.Close()
	}
	if err != nil {
		closeAll()
		return o, nil, nil, err
	}
	return o, loader, closeAll, nil
}
