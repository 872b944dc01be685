package checkpoint

import (
	"context"
	"slices"

	"crucible/checkpoint/criu"
	"crucible/checkpoint/preflight"
	"crucible/container"
	"crucible/container/host"
	"crucible/images"
	"crucible/proto/imagepb"
)

// An incremental image holds the memory that has changed since its parent, as the
// kernel's marks tell it: CRIU clears them when it has written the memory, and
// a later dump leaves out every page without one. The marks tell what has changed
// since they were cleared for the last time, whoever did that and whatever became
// of the image. So an image can be the parent only if it was made
//
//   - by a dump that cleared them: of a container that is left running, where the
//     kernel has them at all (Manifest.tracking);
//   - from these very processes: of a restored one all pages are marked, but
//     processes and mappings may not be those of the parent;
//   - by the last dump that cleared them, or tried to (State.Tracked).
//
// If a page were left out that is not in the parent as it is, the restored
// program would go on with other memory than it had, and nobody would notice.

// judgeMemory decides whether the marks are cleared, opens the parent, and says
// what stands in the way of it.
func (d *dump) judgeMemory() ([]preflight.Finding, error) {
	tracks := host.TracksMemory()
	if d.o.Parent == "" && !d.o.PreDump {
		d.tracked = d.o.LeaveRunning && tracks
		return nil, nil
	}
	if !tracks {
		return []preflight.Finding{{
			Kind: "soft-dirty", Blocks: true, FD: -1,
			What:   "the kernel does not mark the memory that changes, which --parent and --pre-dump need",
			Remedy: "boot a kernel that was built with CONFIG_MEM_SOFT_DIRTY=y, or checkpoint without them",
		}}, nil
	}
	d.tracked = true
	if d.o.Parent == "" {
		return nil, nil
	}
	// Before the guard was there, another checkpoint may have come and gone.
	if err := d.c.Reload(); err != nil {
		return nil, err
	}
	var err error
	if d.parent, err = d.o.Store.Open(d.o.Parent); err != nil {
		return nil, err
	}
	if _, err := d.parent.Chain(); err != nil {
		return nil, err
	}
	return judgeParent(d.parent, d.c.Name, d.c.State), nil
}

// judgeParent says why the marks of a running container do not tell what has
// changed since an image was made.
func judgeParent(parent *images.Image, name string, s container.State) []preflight.Finding {
	f := preflight.Finding{
		Kind: "parent", Blocks: true, FD: -1, Path: parent.Ref(),
		Remedy: "`crucible checkpoint -R " + name + "` writes an image that others can build on",
	}
	last := lastTracked(parent.Store(), name, s)
	if last != "" {
		f.Remedy = "build on " + last + ": --parent " + last
	}
	m := parent.Manifest
	switch {
	case parent.Name != name:
		f.What = "it is an image of another container"
	case m.Tracking == nil:
		f.What = "the kernel was not asked to mark the memory that has changed since"
	case !sameLife(m, s):
		f.What = "the container was started or restored since"
	case m.CreatedUnixNs == s.Tracked:
		return nil
	case last == "":
		f.What = "a later checkpoint, which has failed or whose image was removed, has begun to mark anew what changes"
	default:
		f.What = "it is not the latest: only what has changed since " + last + " is known"
	}
	return []preflight.Finding{f}
}

// sameLife tells whether an image was made from the processes of this container.
func sameLife(m *imagepb.Manifest, s container.State) bool {
	t := m.GetTracking()
	return m.GetWriter().GetBootId() == s.Boot && int(t.GetInitPid()) == s.Init.Pid && t.GetInitStartTicks() == s.Init.Start
}

// lastTracked is the image since which the changes are known, or "".
func lastTracked(store images.Store, name string, s container.State) string {
	all, _ := store.List(name) // a damaged one is not it
	for _, i := range slices.Backward(all) {
		if m := i.Manifest; m.Tracking != nil && sameLife(m, s) && m.CreatedUnixNs == s.Tracked {
			return i.Ref()
		}
	}
	return ""
}

// track notes that the marks are about to be cleared: were it done afterwards, a
// failure in between would leave an older image looking like the last.
func (d *dump) track() error {
	if !d.tracked {
		return nil
	}
	return d.c.Update(func(s *container.State) { s.Tracked = d.line.Started.UnixNano() })
}

// tracking is what the manifest says of it. After a stop there is nobody to
// change anything.
func (d *dump) tracking() *imagepb.Tracking {
	if !d.tracked || !d.o.LeaveRunning {
		return nil
	}
	init := d.c.State.Init
	return &imagepb.Tracking{InitPid: int32(init.Pid), InitStartTicks: init.Start}
}

// preDump has CRIU write the memory while the container runs. CRIU stops the
// tasks by itself: see [criu.Process.PreDump].
func (d *dump) preDump(ctx context.Context, p *criu.Process) error {
	d.o.Progress("pre-dump")
	version, err := p.Version(ctx)
	if err == nil {
		err = version.Suffices()
	}
	if err != nil {
		return err
	}
	if d.writer, err = writer(d.o.Version); err != nil {
		return err
	}
	d.writer.Criu, d.config = version.String(), configLater(d.writer.KernelRelease)
	if err := d.writeBundle(); err != nil {
		return err
	}
	options, closeDirs, err := d.criuOptions()
	if err != nil {
		return err
	}
	defer closeDirs()
	if !d.wasFrozen {
		options.FreezeCgroup = ""
	} else if err := d.vforking(); err != nil {
		return err
	}
	d.draft.Follow()
	defer d.watch(p)()
	d.line.Step("CRIU pre-dump", false)
	d.frozen, err = p.PreDump(ctx, options)
	return err
}
