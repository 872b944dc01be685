package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
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

// jobArgs go from the command to the monitor.
type jobArgs struct {
	Store      string         `json:"store"`
	Ref        string         `json:"ref"`
	CRIU       string         `json:"criu"`
	Net        network.Config `json:"net"`
	Lazy       bool           `json:"lazy"`
	TCPClose   bool           `json:"tcpClose"`
	Trace      bool           `json:"trace"`
	Verify     bool           `json:"verify"`
	NewAddress bool           `json:"newAddress"`
	Extra      []string       `json:"extra"`
	Notes      []string       `json:"notes"`
}

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

// newJobArgs decides how the container meets the network.
func newJobArgs(image *images.Image, c *container.Container, o Options) (*jobArgs, error) {
	a := &jobArgs{Store: image.Store().Dir, Ref: image.Ref(), CRIU: o.CRIU.Path, Lazy: o.Lazy, TCPClose: o.TCPClose, Trace: o.Trace, Verify: o.Verify, Extra: o.Extra}
	var spaces imagepb.Namespaces
	if err := image.Get(images.Namespaces, &spaces); err != nil {
		return nil, err
	}
	saved := networkOf(&spaces)
	if saved == nil || saved.Attachment == nil {
		a.Net = network.Config{Mode: network.ModeNone}
		if saved == nil {
			a.Net.Mode = network.ModeHost
		}
		if o.Address != "" || len(o.Publish) > 0 {
			return nil, &container.OptionError{Cause: fmt.Errorf("the container of %s is on no bridge: it takes no address, and no published ports", image.Ref())}
		}
		return a, nil
	}
	old, err := network.ConfigFrom(saved.Attachment)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image.Ref(), err)
	}
	a.Net = old
	if c.Name != image.Name {
		a.Net.Address, a.Net.MAC, a.Net.Publish = netip.Prefix{}, network.MAC{}, nil
	}
	if len(o.Publish) > 0 {
		a.Net.Publish = o.Publish
	}
	if o.Address != "" {
		if a.Net.Address, err = network.ParseAddress(o.Address); err != nil {
			return nil, err
		}
		a.Net.MAC = network.MAC{}
	}
	a.NewAddress = a.Net.Address.Addr() != old.Address.Addr()
	if a.NewAddress {
		note, err := leftBehind(image.Manifest.GetTraits(), old.Address.Addr())
		if err != nil {
			return nil, err
		}
		a.Notes = append(a.Notes, note...)
	}
	if a.NewAddress && image.Manifest.GetTraits().GetEstablishedTcp() && !a.TCPClose {
		// A connection is bound to its addresses; they cannot follow.
		a.TCPClose = true
		a.Notes = append(a.Notes, "its TCP connections are closed: they cannot go on from another address")
	}
	return a, nil
}
