package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"crucible/checkpoint/criu"
	"crucible/checkpoint/preflight"
	"crucible/container"
	"crucible/container/cgroup"
	"crucible/container/fingerprint"
	"crucible/container/host"
	"crucible/container/network"
	"crucible/images"
	"crucible/images/inspect/namespaces"
	"crucible/images/inspect/processes"
	"crucible/proto/imagepb"
)

// FreezeLimit is how long the tasks may take to freeze unless Options say otherwise.
const FreezeLimit = 10 * time.Second

// Options say how a checkpoint is made. Store and CRIU are required; what the
// container itself says (open connections, locks, mounts) is found out.
type Options struct {
	Store        images.Store
	CRIU         *criu.CRIU
	LeaveRunning bool
	Parent       string            // NAME@N: leave out memory that has not changed since that image
	PreDump      bool              // write memory only, while the container runs on
	DryRun       bool              // stop after the preflight
	Verify       bool              // take a fingerprint, and compare it with one after a dump that leaves the container running
	Preflight    preflight.Options // what the user chose
	Extra        []string          // other options of CRIU, by their long names
	WorkDir      string            // for CRIU's log; default: in the container's directory
	Timeout      time.Duration     // to freeze the tasks; 0 is FreezeLimit
	Version      string            // of crucible, for the manifest
	Command      []string          // the command line, for the manifest
	Timeline     *Timeline         // what the command has done so far; nil: nothing
	Progress     func(phase string)
}

// Result is what a checkpoint made.
type Result struct {
	Ref      string           `json:"image"` // NAME@N, empty after a dry run
	Dir      string           `json:"directory,omitempty"`
	Frozen   time.Duration    `json:"frozen"` // nanoseconds in which no task ran, or until they were killed
	Left     bool             `json:"leftRunning"`
	Findings preflight.Report `json:"preflight"`
	Phases   []Phase          `json:"phases"`
	Verified *Verified        `json:"verified,omitempty"` // with Options.Verify
}

// dump is a checkpoint under way.
type dump struct {
	c     *container.Container
	o     Options
	spec  *specs.Spec
	group *cgroup.Group
	ns    *os.File // the container's network namespace, nil for the host's
	p     *criu.Process
	line  *Timeline

	wasFrozen bool // by the user
	tracked   bool // the kernel is asked to mark what changes from here on
	parent    *images.Image
	writer    *imagepb.Writer
	warm      chan error                       // see run
	config    func() (sum []byte, path string) // of the kernel
	options   map[string]string                // of CRIU
	guard     *container.Guard
	parking   *network.Parking
	report    preflight.Report
	draft     *images.Draft
	image     *images.Image

	frozenAt   time.Time
	frozen     time.Duration
	prepared   func() error // waits for what is prepared beside CRIU
	gathered   chan error   // what is read beside CRIU
	processes  *imagepb.Processes
	namespaces *imagepb.Namespaces
	mounts     *imagepb.Mounts
	archives   *imagepb.Filesystem
	trees      []tree
	treesSaved error

	fingerprint *fingerprint.Fingerprint // before CRIU had hold of the tasks
	takenAt     time.Time
	verified    *Verified

	bound, connectedUDP int // sockets: see [network.BoundTo]
}

// Dump writes a container's state to a new image. Unless LeaveRunning or PreDump
// is set the container is stopped when, and only when, the image is whole. After any
// error it runs on, or is frozen still if it was frozen before, and no draft
// stays behind. What cannot be checkpointed is a *preflight.Error.
func Dump(ctx context.Context, c *container.Container, o Options) (*Result, error) {
	d := &dump{c: c, o: o, line: o.Timeline, gathered: make(chan error, 1)}
	if d.line == nil {
		d.line = NewTimeline(time.Time{})
	}
	d.line.Step("get hold of the container", false)
	if o.Progress == nil {
		d.o.Progress = func(string) {}
	}
	d.o.LeaveRunning = o.LeaveRunning || o.PreDump
	err := d.run(ctx)
	d.line.Stop()
	r := &Result{Frozen: d.frozen, Left: d.o.LeaveRunning, Findings: d.report, Phases: d.line.Phases(), Verified: d.verified}
	var state *container.StateError
	if errors.As(err, &state) {
		return r, err // it says the same
	}
	if err != nil && !c.State.Monitor.Alive() {
		return r, &container.MonitorError{Name: c.Name, Err: io.EOF} // whatever else was the consequence
	}
	if err != nil {
		return r, fmt.Errorf("checkpoint container %s: %w", c.Name, err)
	}
	if d.image != nil {
		r.Ref, r.Dir = d.image.Ref(), d.image.Dir()
		d.keepTimeline()
	}
	return r, nil
}

func (d *dump) run(ctx context.Context) error {
	status, err := d.c.Require("checkpoint", container.Running, container.Frozen)
	if err != nil {
		return err
	}
	d.wasFrozen = status == container.Frozen
	if err := host.CheckpointRestore(); err != nil {
		return err
	}
	if d.ns, err = d.c.NetNS(); err != nil {
		return err
	}
	if d.ns != nil {
		defer d.ns.Close()
	}
	if d.o.DryRun {
		return d.preflight(ctx)
	}
	if d.c.State.Loader.Alive() {
		d.o.Progress("wait for the rest of its memory")
		if err := d.c.AwaitLoader(ctx); err != nil {
			return err
		}
	}
	if d.guard, err = d.c.Guard(d.wasFrozen); err != nil {
		return err
	}
	defer d.guard.Close()
	// What is done once in a process is done while there is time.
	d.warm = make(chan error, 1)
	go func() { d.warm <- errors.Join(processes.Prepare(), namespaces.Prepare(), images.Prepare()) }()
	// CRIU takes its time to start: it does so beside the preflight.
	d.line.Step("start CRIU", false)
	p, err := d.startCRIU(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	d.p = p
	if err := d.preflight(ctx); err != nil {
		return err
	}
	d.line.Step("open the draft", false)
	if d.draft, err = d.o.Store.Draft(ctx, d.c.Name); err != nil {
		return err
	}
	defer func() { d.parking.Close() }()
	// After a commit there is nothing to discard.
	defer func() { _ = d.draft.Discard() }()
	defer func() { _ = d.closeTrees() }()
	if err := d.track(); err != nil {
		return err
	}
	if d.o.PreDump {
		err = d.preDump(ctx, p)
	} else {
		err = d.criu(ctx, p)
	}
	if err != nil && d.image != nil {
		err = d.unfinished(ctx, err)
	}
	if err != nil {
		return errors.Join(err, d.release(), d.goOn())
	}
	err = d.after(ctx)
	d.line.Step("end CRIU", false)
	return err
}

// endLimit is how long tasks that CRIU has killed may take to end.
const endLimit = time.Second

// unfinished decides what became of a checkpoint whose CRIU failed once the
// image was whole, while it ended the tasks. Either there are no tasks any more,
// and all is well, or the container goes on and there is no image.
func (d *dump) unfinished(ctx context.Context, failure error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	if d.c.AwaitInit(ctx) == nil {
		return nil
	}
	err := d.o.Store.Remove(context.WithoutCancel(ctx), d.image.Ref())
	d.image = nil
	return errors.Join(failure, err)
}

// release comes before the tasks run again after a dump that failed. A CRIU
// that could has put everything back by itself.
func (d *dump) release() error {
	if d.frozenAt.IsZero() {
		return nil
	}
	return d.c.ReleaseConnections()
}

// prepare does what must be there before the freeze, beside CRIU's own
// preparation. The files that are written while the container stands still are
// created: that costs more than to write them.
func (d *dump) prepare(ctx context.Context) error {
	end := d.line.Begin("prepare draft", false)
	w, err := writer(d.o.Version)
	if err != nil {
		return err
	}
	d.writer, d.config = w, configLater(w.KernelRelease)
	d.draft.Follow()
	if err := d.writeBundle(); err != nil {
		return err
	}
	if err := d.draft.Put(images.Mounts, d.mounts); err != nil {
		return err
	}
	if err := d.openTrees(); err != nil {
		return err
	}
	if err := <-d.warm; err != nil {
		return err
	}
	end()
	return d.prepareParking(ctx)
}

func (d *dump) preflight(ctx context.Context) error {
	d.line.Step("preflight", false)
	d.o.Progress("preflight")
	var err error
	if d.spec, err = d.c.Spec(); err != nil {
		return err
	}
	if d.group, err = d.c.Group(); err != nil {
		return err
	}
	if d.mounts, err = readMounts(d.c.State.Init.Pid, d.spec); err != nil {
		return err
	}
	pids, err := d.group.Pids()
	if err != nil {
		return err
	}
	nested, err := d.group.Nested()
	if err != nil {
		return err
	}
	d.report, err = preflight.Inspect(ctx, preflight.Subject{
		Frozen: d.wasFrozen, Nested: nested,
		Init: d.c.State.Init.Pid, Pids: pids, NetNS: d.ns, UserNS: len(d.spec.Linux.UIDMappings) > 0,
		External: externalPoints(d.mounts), Given: d.o.Preflight,
	})
	if err != nil {
		return err
	}
	unfit, err := d.judgeMemory()
	if err != nil {
		return err
	}
	d.report.Findings = slices.Insert(d.report.Findings, 0, append(unfit, lostMask(d.mounts)...)...)
	var blocking []preflight.Finding
	for _, f := range d.report.Findings {
		if f.Blocks {
			blocking = append(blocking, f)
		}
	}
	if len(blocking) > 0 && !d.o.DryRun {
		return &preflight.Error{Findings: blocking}
	}
	return nil
}

// prepareParking readies the stand-in for the container's link, before the freeze.
func (d *dump) prepareParking(ctx context.Context) error {
	a := d.c.State.Attachment
	if a == nil {
		return nil
	}
	defer d.line.Begin("prepare parking", false)()
	var err error
	if d.parking, err = a.Park(ctx); err != nil || d.parking == nil {
		return err
	}
	return d.guard.Park(d.parking)
}

// freeze is the answer to CRIU's pre-dump: CRIU has done all that it can do
// before. From here on the container stands still.
func (d *dump) freeze(ctx context.Context) error {
	d.frozenAt = time.Now()
	d.line.StepAt(d.frozenAt, "freeze", true)
	if d.wasFrozen {
		if err := d.vforking(); err != nil {
			return err
		}
	} else {
		limit := d.o.Timeout
		if limit == 0 {
			limit = FreezeLimit
		}
		if err := d.freezeApart(ctx, limit); err != nil {
			return err
		}
	}
	if d.parking != nil {
		d.line.Step("park", true)
		if err := d.parking.Start(ctx); err != nil {
			return err
		}
	}
	if d.o.Verify {
		if err := d.takeFingerprint(ctx); err != nil {
			return err
		}
	}
	d.line.Step("CRIU dump", true)
	go func() { d.gathered <- d.gather(ctx) }()
	return nil
}

// dumped is the answer to CRIU's post-dump: the tasks stand still, CRIU's
// files are written, and an error makes CRIU let the tasks go on.
func (d *dump) dumped(ctx context.Context) error {
	d.line.Step("save the rest", true)
	defer d.line.Step("CRIU lets go", true)
	if err := <-d.gathered; err != nil {
		return err
	}
	if d.linked() {
		d.treesSaved = d.saveTrees(ctx)
	}
	if err := errors.Join(d.treesSaved, d.closeTrees()); err != nil {
		return err
	}
	if d.o.LeaveRunning {
		return nil
	}
	if !d.c.State.Monitor.Alive() { // nobody would see the container's end
		return &container.MonitorError{Name: d.c.Name, Err: io.EOF}
	}
	return d.commit(ctx)
}

// after lets the container go on, or sees it off.
func (d *dump) after(ctx context.Context) error {
	if !d.o.LeaveRunning {
		if err := d.guard.Done(true); err != nil {
			return err
		}
		d.line.Step("take down", false)
		if _, err := d.c.Wait(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		return d.c.Update(func(s *container.State) { s.Image = d.image.Ref() })
	}
	if err := errors.Join(d.compareFingerprint(ctx), d.goOn()); err != nil {
		return err
	}
	if err := d.commit(ctx); err != nil || d.o.PreDump {
		return err
	}
	return d.c.Update(func(s *container.State) { s.Image = d.image.Ref() })
}

// goOn thaws the container, unless the user had frozen it, and gives it the
// packets that came meanwhile. It is not stopped by a cancelled context. (To
// thaw at CRIU's post-dump would be of no use: CRIU freezes a group again that
// it found frozen, before it lets go of the tasks.)
func (d *dump) goOn() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	d.line.Step("thaw", false)
	var errs []error
	if d.parking != nil && !d.frozenAt.IsZero() {
		// First, or what the container sends between thaw and delivery is lost.
		errs = append(errs, d.c.State.Attachment.Activate(ctx))
	}
	if !d.wasFrozen && !d.frozenAt.IsZero() {
		errs = append(errs, d.group.Thaw(ctx))
		d.frozen = time.Since(d.frozenAt)
	}
	if d.parking != nil {
		d.line.Step("deliver parked frames", false)
		_, err := d.parking.Deliver(ctx, d.c.State.Attachment)
		errs = append(errs, err, d.parking.Stop(ctx))
	}
	return errors.Join(append(errs, d.guard.Done(false))...)
}
