package workload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"crucible/checkpoint"
	"crucible/container"
	"crucible/container/network"
	"crucible/images"
	"crucible/restore"
)

// definition is what a case's container is.
type definition struct {
	container.RunOptions
	net    network.Mode
	change func(*specs.Spec)
}

// stage is a case under way.
type stage struct {
	c    Case
	o    Options
	r    *Result
	name string // of its container, and what those of its clones begin with
	dir  string // root filesystem and volumes

	box   *container.Container
	image *images.Image
	peer  net.Conn // the part outside, of cases that have one

	monitors []container.Process // that were started

	mu  sync.Mutex
	all []string // names of the containers that were made
}

func (s *stage) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.all...)
}

func (s *stage) willMake(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, name)
}

func (s *stage) play(ctx context.Context) error {
	defer func() {
		if s.peer != nil {
			s.peer.Close()
		}
	}()
	if err := s.start(ctx); err != nil {
		return err
	}
	s.r.Step = StepReady
	if s.c.meet != nil {
		if err := s.c.meet(ctx, s); err != nil {
			return err
		}
	}
	if err := s.await(ctx, saysReady); err != nil {
		return err
	}
	plot := s.c.plot
	if plot == nil {
		plot = once
	}
	return plot(ctx, s)
}

// once is the usual plot.
func once(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	return s.goOn(ctx)
}

// start makes the root filesystem and starts the container.
func (s *stage) start(ctx context.Context) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	d := definition{RunOptions: container.RunOptions{
		Args: []string{programPath, s.c.Name}, Rootfs: s.rootfs(), Hostname: s.name,
		Env:     programEnv(),
		Volumes: append([]string{self + ":" + programPath + ":ro"}, s.o.volumes...),
	}}
	if s.c.define != nil {
		s.c.define(&d)
	}
	for i, v := range d.Volumes { // one of the case's own
		if !filepath.IsAbs(v) {
			d.Volumes[i] = filepath.Join(s.dir, v)
		}
	}
	spec, err := container.NewSpec(d.RunOptions)
	if err != nil {
		return err
	}
	if d.change != nil {
		d.change(spec)
	}
	s.willMake(s.name)
	s.box, err = s.o.Root.Create(s.name, spec, container.CreateOptions{Net: network.Config{Mode: d.net}})
	if err != nil {
		return err
	}
	if err := s.box.Launch(ctx, false, false); err != nil {
		return err
	}
	s.monitors = append(s.monitors, s.box.State.Monitor)
	return nil
}

// await waits for a line of the program's.
func (s *stage) await(ctx context.Context, line string) error {
	f, err := os.OpenFile(s.box.Log(), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	said := errors.New("it was said")
	err = s.box.FollowLog(ctx, f, func(l container.LogLine) error {
		l.Text = strings.TrimSuffix(l.Text, "\r") // of a terminal
		if err := setUp(l.Text); err != nil {
			return err
		}
		if l.Text == line {
			return said
		}
		return nil
	})
	switch {
	case err == said:
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("the program has ended before it was ready: %w", s.ending(ctx))
}

// checkpoint has the engine write an image; Store and CRIU are filled in.
func (s *stage) checkpoint(ctx context.Context, o checkpoint.Options) error {
	s.r.Step = StepCheckpoint
	o.Store, o.CRIU = images.Store{Dir: s.o.Root.Images()}, s.o.CRIU
	var result *checkpoint.Result
	err := s.around("checkpoint", &s.r.Checkpoint, func() (err error) {
		result, err = checkpoint.Dump(ctx, s.box, o)
		return err
	})
	if err != nil {
		return err
	}
	s.r.Frozen += result.Frozen
	s.image, err = o.Store.Open(result.Ref)
	return err
}

// restore has the engine start the container from the last image, or with a
// name a clone, which is the one that the stage goes on with.
func (s *stage) restore(ctx context.Context, o restore.Options) error {
	s.r.Step = StepRestore
	o.Root, o.CRIU = s.o.Root, s.o.CRIU
	if o.Name != "" {
		s.willMake(o.Name)
	}
	var result *restore.Result
	err := s.around("restore", &s.r.Restore, func() (err error) {
		result, err = restore.From(ctx, s.image, o)
		return err
	})
	if err != nil {
		return err
	}
	if s.box, err = s.o.Root.Open(result.Name); err != nil {
		return err
	}
	s.monitors = append(s.monitors, s.box.State.Monitor)
	return nil
}

func (s *stage) around(phase string, took *time.Duration, f func() error) error {
	start := time.Now()
	defer func() { *took += time.Since(start) }()
	if s.o.Around == nil {
		return f()
	}
	return s.o.Around(phase, f)
}

// goOn has the program check itself.
func (s *stage) goOn(ctx context.Context) error {
	if err := s.tell(ctx); err != nil {
		return err
	}
	return s.end(ctx)
}

// tell gives the program the go-ahead.
func (s *stage) tell(ctx context.Context) error {
	s.r.Step = StepCheck
	if s.o.spoil != nil {
		if err := s.o.spoil(s.box); err != nil {
			return err
		}
	}
	return s.box.Kill(ctx, GoAhead, false)
}

// end waits until the program has checked itself.
func (s *stage) end(ctx context.Context) error {
	code, err := s.box.Wait(ctx)
	if err != nil || code == 0 {
		return err
	}
	return s.ending(ctx)
}

// ending is how the program has ended, in its own words where it has any.
func (s *stage) ending(ctx context.Context) error {
	code, err := s.box.Wait(ctx)
	if err != nil {
		return err
	}
	log, err := os.ReadFile(s.box.Log())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return Ended(string(log), code)
}

// Ended says how a program has ended that was not content, from its log and its
// exit status.
func Ended(log string, code int) error {
	words := lastWords(log)
	if what, ok := strings.CutPrefix(words, saysDiffer); ok {
		return errors.New(what)
	}
	if code > 128 {
		return fmt.Errorf("the program was ended by signal %d; its last words: %q", code-128, words)
	}
	return fmt.Errorf("the program ended with status %d; its last words: %q", code, words)
}
