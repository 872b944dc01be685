package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"crucible/checkpoint"
	"crucible/checkpoint/criu"
	"crucible/container"
	"crucible/container/host"
	"crucible/container/network"
	"crucible/images"
	"crucible/proto/imagepb"
)

// Options say how a container comes back. Root and CRIU are required.
type Options struct {
	Root     container.Root
	CRIU     *criu.CRIU
	Name     string         // of the new container; "" is the image's own
	Address  string         // A.B.C.D[/N] on the bridge; "" is the image's for its own name, else a free one
	Publish  []network.Port // ports of the host that lead to it; none: the image's for its own name
	Lazy     bool           // let it run before its memory is loaded
	TCPClose bool           // restore TCP connections closed
	Trace    bool           // have CRIU log every step, also where that takes time
	Verify   bool           // compare what the kernel shows with the image's fingerprint; not with Lazy
	Extra    []string       // other options of CRIU, by their long names
	Progress func(phase string)
	Timeline *checkpoint.Timeline // what the command has done so far; nil: nothing
}

// Result is a container that came back.
type Result struct {
	Name    string             `json:"name"`
	Image   string             `json:"image"`
	Pid     int                `json:"pid"`
	Address string             `json:"address,omitempty"`
	Notes   []string           `json:"notes,omitempty"` // what is not as it was, and why
	Phases  []checkpoint.Phase `json:"phases"`

	Verified *checkpoint.Verified `json:"verified,omitempty"` // with Options.Verify
}

// From restores one container from an image. After an error nothing of it is
// left; a stopped container of that name is as it was before, but is defined by
// the image.
func From(ctx context.Context, image *images.Image, o Options) (*Result, error) {
	line := o.Timeline
	if line == nil {
		line = checkpoint.NewTimeline(time.Time{})
	}
	line.Step("check the image", false)
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if err := image.CheckMachine(""); err != nil {
		return nil, err
	}
	if err := image.CheckWhole(); err != nil {
		return nil, err
	}
	if _, err := image.Chain(); err != nil {
		return nil, err
	}
	if o.Verify && !hasFingerprint(image) {
		return nil, &NoFingerprintError{image.Ref()}
	}
	if err := host.CheckpointRestore(); err != nil {
		return nil, fmt.Errorf("restore from %s: %w", image.Ref(), err)
	}
	line.Step("make the container", false)
	c, created, err := target(ctx, image, o)
	if err != nil {
		return nil, wrap(image, cmp.Or(o.Name, image.Name), err)
	}
	args, err := newJobArgs(image, c, o)
	if err == nil {
		o.Progress("restore")
		line.Step("start the monitor", false)
		var r jobResult
		if err = c.Spawn(ctx, JobName, args, &r); err == nil {
			return finish(c, image, line, r)
		}
	}
	if created {
		err = errors.Join(err, c.Delete(context.WithoutCancel(ctx), container.DeleteOptions{Force: true, KeepLogs: true}))
		_ = os.Remove(c.Root.Logs(c.Name)) // unless CRIU has written one
	}
	return nil, wrap(image, c.Name, err)
}

func finish(c *container.Container, image *images.Image, line *checkpoint.Timeline, r jobResult) (*Result, error) {
	took(line, r)
	if err := c.Reload(); err != nil {
		return nil, err
	}
	out := &Result{Name: c.Name, Image: image.Ref(), Pid: c.State.Init.Pid, Notes: r.Notes, Verified: r.Verified}
	if a := c.State.Attachment; a != nil {
		out.Address = a.Address.Addr().String()
	}
	line.Stop()
	out.Phases = line.Phases()
	line.Keep(filepath.Join(c.Root.Logs(c.Name), TimelineFile), r.Marks)
	return out, nil
}

// took adds what the monitor has done, in whose time the command waited.
func took(line *checkpoint.Timeline, r jobResult) {
	line.StepAt(r.Started, "", false)
	shift := r.Started.Sub(line.Started)
	last := shift
	for _, p := range r.Phases {
		p.Start += shift
		if p.Track == "" {
			p.Track = checkpoint.Monitor
			last = max(last, p.Start+p.Duration)
		}
		line.Add(p)
	}
	line.StepAt(line.Started.Add(last), "hear from the monitor", false)
}

// TimelineFile is where a container's last restore has its timeline, in its
// directory of logs beside CRIU's.
const TimelineFile = "restore.timeline"

// LogFile is the name of CRIU's log there.
const LogFile = "restore.log"

// target finds or makes the directory of the container that comes back.
func target(ctx context.Context, image *images.Image, o Options) (c *container.Container, created bool, err error) {
	name := cmp.Or(o.Name, image.Name)
	spec, bundle, err := image.Spec()
	if err != nil {
		return nil, false, err
	}
	if _, err := os.Stat(spec.Root.Path); err != nil {
		return nil, false, &RootError{Path: spec.Root.Path, Err: err}
	}
	c, err = o.Root.Open(name)
	var missing *container.NotFoundError
	if err == nil {
		if err := c.Recover(ctx); err != nil {
			return nil, false, err
		}
		if _, err := c.Require("restore", container.Stopped); err != nil {
			return nil, false, err
		}
		return c, false, c.SetConfig(bundle)
	}
	if !errors.As(err, &missing) {
		return nil, false, err
	}
	c, err = o.Root.Create(name, spec, container.CreateOptions{})
	return c, err == nil, err
}

// RootError says that the root filesystem of an image's container is not there.
type RootError struct {
	Path string
	Err  error
}

func (e *RootError) Error() string {
	cause := e.Err
	if path := (*os.PathError)(nil); errors.As(e.Err, &path) {
		cause = path.Err
	}
	return fmt.Sprintf("root.path: %s: %v", e.Path, cause)
}

func (e *RootError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *RootError) Hint() string {
	return "an image holds what the container changed, not the root filesystem below it: put that back at " + e.Path
}

// networkOf is how the container met the network when the image was made.
func networkOf(n *imagepb.Namespaces) *imagepb.NetworkNamespace {
	for _, one := range n.Namespaces {
		if net := one.GetNetwork(); net != nil {
			return net
		}
	}
	return nil
}

// wrap says what was being done, unless the error does: one about the container's
// state does, also when it comes from the monitor.
func wrap(image *images.Image, name string, err error) error {
	if strings.HasPrefix(err.Error(), "restore container "+name+":") {
		return err
	}
	return fmt.Errorf("restore container %s from %s: %w", name, image.Ref(), err)
}

// Clones restores one image count times, as NAME-1, NAME-2 and so on, several
// at once. What came up stays up when another one fails; the error names those
// that did not.
func Clones(ctx context.Context, image *images.Image, count, parallel int, o Options) ([]*Result, error) {
	base := cmp.Or(o.Name, image.Name)
	results, errs := make([]*Result, count), make([]error, count)
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i := range count {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			one := o
			one.Timeline = nil
			one.Name = fmt.Sprintf("%s-%d", base, i+1)
			results[i], errs[i] = From(ctx, image, one)
		}()
	}
	wg.Wait()
	var up []*Result
	for _, r := range results {
		if r != nil {
			up = append(up, r)
		}
	}
	return up, errors.Join(errs...)
}
