package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"crucible/checkpoint"
	"crucible/checkpoint/criu"
	"crucible/container"
	"crucible/container/cgroup"
	"crucible/container/network"
	"crucible/images"
	"crucible/images/filesystem"
	"crucible/proto/imagepb"
)

// JobName is the kind of a monitor's job that Job does.
const JobName = "restore"

// jobResult goes back.
type jobResult struct {
	Started time.Time          `json:"started"`
	Notes   []string           `json:"notes"`
	Phases  []checkpoint.Phase `json:"phases"`
	Marks   []criu.Mark        `json:"marks"`

	Verified *checkpoint.Verified `json:"verified"`
}

// job is a restore under way, in the monitor.
type job struct {
	m      *container.Monitor
	a      jobArgs
	image  *images.Image
	hold   *os.File // on the image
	line   *checkpoint.Timeline
	marks  []criu.Mark
	notes  []string
	spaces imagepb.Namespaces
	mounts imagepb.Mounts
	trees  imagepb.Filesystem

	group    *cgroup.Group
	limits   map[string]string // of the group: see [cgroup.Group.RestoreValues]
	parked   *network.Parking
	verified chan error // what must be whole before the tasks run
	loaded   chan error // the pages, if they are loaded lazily
	viewed   chan error // the view is there
	view     *images.View
	noView   context.CancelFunc // it is not needed any more
	damaged  context.CancelCauseFunc
	master   *os.File
	check    check // with jobArgs.Verify
}

// Job brings a container up from an image, in its monitor m. See
// [container.MaybeMonitor].
func Job(ctx context.Context, m *container.Monitor, raw json.RawMessage) (any, error) {
	j := &job{m: m, line: checkpoint.NewTimeline(time.Time{}), verified: make(chan error, 1), loaded: make(chan error, 1), viewed: make(chan error, 1)}
	if err := json.Unmarshal(raw, &j.a); err != nil {
		return nil, err
	}
	// Whatever happens, no reading of the image goes on behind our back.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j.damaged = cancel
	j.line.Step("open the image", false)
	j.notes = j.a.Notes
	if err := j.run(ctx); err != nil {
		j.drop()
		var damaged *images.Error
		if errors.As(context.Cause(ctx), &damaged) {
			return nil, damaged // anything else follows from it
		}
		return nil, err
	}
	j.line.Stop()
	return jobResult{Started: j.line.Started, Notes: j.notes, Phases: j.line.Phases(), Marks: j.marks, Verified: j.check.verified}, nil
}

func (j *job) run(ctx context.Context) error {
	if err := j.open(ctx); err != nil {
		return err
	}
	defer j.hold.Close()
	defer j.endView()
	j.line.Step("make the cgroup", false)
	if err := j.makeGroup(); err != nil {
		return err
	}
	// CRIU takes its time to start: it does so while we prepare. It comes from
	// this thread, and so sees the mounts that are made on it later.
	j.line.Step("start CRIU", false)
	ns, err := j.m.NetNS()
	if err != nil {
		return err
	}
	p, err := j.startCRIU(ctx, ns)
	if err != nil {
		return err
	}
	defer p.Close()
	j.line.Step("prepare", false)
	if err := j.prepare(ctx); err != nil {
		return err
	}
	if err := j.restore(ctx, p); err != nil {
		return err
	}
	// The tasks run on pages that are not known to be whole yet. If they are
	// not, the container ends with the error.
	j.line.Step("wait for the pages", false)
	return <-j.loaded
}

// makeGroup makes the cgroup, without the limits that would bind CRIU too.
func (j *job) makeGroup() (err error) {
	if j.group, err = j.m.Group(); err != nil {
		return err
	}
	for _, n := range j.spaces.Namespaces {
		if c := n.GetCgroup(); c != nil {
			j.limits = c.Values
			return j.group.RestoreValues(cgroup.WithoutRoom(c.Values))
		}
	}
	return nil
}

// open reads our own files of the image and begins to check all digests. Until
// hold is closed nobody can remove the image.
func (j *job) open(ctx context.Context) (err error) {
	if j.image, err = (images.Store{Dir: j.a.Store}).Open(j.a.Ref); err != nil {
		return err
	}
	if j.hold, err = j.image.Hold(); err != nil {
		return err
	}
	for file, m := range map[string]proto.Message{images.Namespaces: &j.spaces, images.Mounts: &j.mounts, images.Filesystem: &j.trees} {
		if err := j.image.Get(file, m); err != nil {
			return errors.Join(err, j.hold.Close())
		}
		j.noteUnknown(file, m)
	}
	j.noteUnknown(images.Manifest, j.image.Manifest)
	unpacking, stop := context.WithCancel(ctx)
	j.noView = stop
	go j.unpack(unpacking)
	if j.a.Lazy {
		go j.verify(ctx, j.verified, 0, func(file string) bool { return !images.IsPages(file) })
		go j.verify(ctx, j.loaded, j.workers(), images.IsPages)
	} else {
		go j.verify(ctx, j.verified, j.workers(), nil)
		j.loaded <- nil
	}
	return nil
}

// noteUnknown says what a newer crucible has written that this one goes without.
// The image restores rightly all the same: if not, its min_reader says so.
func (j *job) noteUnknown(file string, m proto.Message) {
	for _, u := range images.UnknownFields(file, m) {
		j.notes = append(j.notes, u.String()+" is unknown to this crucible: a newer one wrote the image")
	}
}

// workers leaves one processor to CRIU.
func (j *job) workers() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// verify checks digests beside everything else.
func (j *job) verify(ctx context.Context, done chan<- error, workers int, only func(string) bool) {
	end := j.line.Begin("check digests", false)
	err := j.image.Verify(ctx, images.VerifyOptions{Workers: workers, Only: only, Plain: true})
	end()
	done <- err
	if err != nil {
		j.damaged(err) // CRIU may never come to an end with a damaged image
	}
}

// prepare makes what the tasks will stand in.
func (j *job) prepare(ctx context.Context) error {
	var err error
	if j.parked, err = j.m.TakeParked(); err != nil {
		return err
	}
	// What an earlier life left in the layer is not part of the image.
	if err := j.m.SetLayerAside(); err != nil {
		return err
	}
	j.m.SetNetwork(j.a.Net)
	j.m.SetImage(j.image.Ref())
	o, err := j.prepareOptions(ctx)
	if err != nil {
		return err
	}
	if err := j.m.Prepare(ctx, o); err != nil {
		return err
	}
	for _, w := range j.m.Warnings() {
		j.notes = append(j.notes, w.String())
	}
	return nil
}

// fill puts back what the container had in its layer and its tmpfs mounts.
func (j *job) fill(ctx context.Context, dirs map[string]string) error {
	for target, dir := range dirs {
		for _, a := range j.trees.Archives {
			if a.MountPoint != target {
				continue
			}
			if err := j.load(ctx, a, dir); err != nil {
				return fmt.Errorf("put back the contents of %s: %w", target, err)
			}
		}
	}
	return nil
}

func (j *job) load(ctx context.Context, a *imagepb.Archive, dir string) error {
	f, err := j.image.Open(a.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = filesystem.Load(ctx, f, dir)
	return err
}

// prepareOptions say what the container's surroundings are to be.
func (j *job) prepareOptions(ctx context.Context) (container.PrepareOptions, error) {
	o := container.PrepareOptions{
		Fill:       func(dirs map[string]string) error { return j.fill(ctx, dirs) },
		Quiet:      true,
		NewAddress: j.a.NewAddress,
	}
	if saved := networkOf(&j.spaces); saved != nil {
		var err error
		if o.Saved, err = network.SavedFrom(saved); err != nil {
			return o, err
		}
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	o.SameHost = err == nil && strings.TrimSpace(string(boot)) == j.image.Manifest.GetWriter().GetBootId()
	return o, nil
}

// activate lets packets come and go.
func (j *job) activate(ctx context.Context) error {
	if a := j.m.Container().State.Attachment; a != nil {
		return j.m.OnHost(func() error { return a.Activate(ctx) })
	}
	return nil
}

// drop forgets those packets after a failure: they would keep the bridge, which
// the monitor is about to sweep.
func (j *job) drop() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = j.m.OnHost(func() error { return j.parked.Stop(ctx) })
	j.parked.Close()
}

// deliver gives the container the packets that came while it did not exist.
func (j *job) deliver(ctx context.Context) error {
	if j.parked == nil {
		return nil
	}
	j.line.Step("deliver parked frames", false)
	return j.m.OnHost(func() error {
		a := j.m.Container().State.Attachment
		if a == nil || !j.parked.For(a) {
			return j.parked.Stop(ctx)
		}
		_, err := j.parked.Deliver(ctx, a)
		return errors.Join(err, j.parked.Stop(ctx))
	})
}
