package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"crucible/container"
	"crucible/experiments/builtin"
	"crucible/experiments/plan"
	"crucible/experiments/workload"
	"crucible/images"
	"crucible/proto/imagepb"
)

func (r *run) step(ctx context.Context, s plan.Step) error {
	switch s.Verb {
	case "run":
		return r.start(ctx)
	case "wait":
		return wait(ctx, s.Args[0])
	case "checkpoint":
		return r.checkpoint(ctx, s)
	case "restore":
		return r.restore(ctx, s)
	case "clone":
		return r.clone(ctx, s)
	case "exec":
		_, err := r.command(ctx, append([]string{"exec", r.name, "--"}, s.Args...)...)
		return err
	case "check":
		return r.check(ctx)
	case "expect":
		return r.expect(ctx, s)
	case "freeze", "thaw", "stop":
		_, err := r.command(ctx, append(append([]string{s.Verb, "--json"}, s.Options.Flags()...), r.name)...)
		return err
	case "kill":
		return r.kill(ctx, s)
	case "repeat":
		for range s.Times {
			r.steps(ctx, s.Steps)
		}
		return nil
	}
	return fmt.Errorf("no such verb: %s", s.Verb) // plan.Parse knows them all
}

func wait(ctx context.Context, text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// told is what checkpoint and restore print, as far as it is measured.
type told struct {
	Image  string        `json:"image"`
	Frozen time.Duration `json:"frozen"` // nanoseconds
	Phases []struct {
		Name     string        `json:"name"`
		Duration time.Duration `json:"duration"`
	} `json:"phases"`
	Verified *struct {
		Differences []struct {
			Key           string
			Before, After any // a text, or nothing
			Note          string
		} `json:"differences"`
	} `json:"verified"` // by --verify
}

// verified notes what --verify has found.
func (r *run) verified(t *told) {
	if t.Verified == nil {
		return
	}
	r.measure("differences", float64(len(t.Verified.Differences)))
	for _, d := range t.Verified.Differences {
		r.record.Differs = append(r.record.Differs, strings.TrimSpace(fmt.Sprintf("%s: %v, now %v %s", d.Key, d.Before, d.After, d.Note)))
	}
}

func (r *run) phases(verb string, t *told) {
	for _, p := range t.Phases {
		r.seconds("phase:"+verb+"/"+p.Name, p.Duration)
	}
}

func (r *run) checkpoint(ctx context.Context, s plan.Step) error {
	o, err := r.command(ctx, append(append([]string{"checkpoint", "--json"}, s.Options.Flags()...), r.name)...)
	if err != nil {
		return err
	}
	var t told
	if err := json.Unmarshal(o.out, &t); err != nil {
		return err
	}
	r.image = t.Image
	r.seconds("checkpoint", o.took)
	r.seconds("frozen", t.Frozen)
	r.seconds("checkpoint-cpu", o.cpu)
	r.measure("checkpoint-memory", float64(o.memory))
	r.phases("checkpoint", &t)
	r.verified(&t)
	return r.weigh()
}

// weigh measures the image.
func (r *run) weigh() error {
	i, err := images.Store{Dir: container.Root(r.root).Images()}.Open(r.image)
	if err != nil {
		return err
	}
	var pages int64
	for _, f := range i.Manifest.Files {
		if images.IsPages(f.Path) {
			pages += int64(f.Size)
		}
	}
	r.measure("image-size", float64(sizeOf(i.Manifest)))
	r.measure("image-pages", float64(pages))
	return nil
}

func sizeOf(m *imagepb.Manifest) (n int64) {
	for _, f := range m.Files {
		n += int64(f.Size)
	}
	return n
}

// diskUsage is what the files below a directory take, in bytes.
func diskUsage(dir string) (n float64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				n += float64(s.Blocks) * 512
			}
		}
		return nil
	})
	return n
}

var errNoImage = errors.New("there is no image yet: a checkpoint comes first")

func (r *run) restore(ctx context.Context, s plan.Step) error {
	if r.image == "" {
		return errNoImage
	}
	begin := time.Now()
	o, err := r.command(ctx, append(append([]string{"restore", "--json"}, s.Options.Flags()...), r.image)...)
	if err != nil {
		return err
	}
	var t told
	if err := json.Unmarshal(o.out, &t); err != nil {
		return err
	}
	r.seconds("restore", o.took)
	r.seconds("restore-cpu", o.cpu)
	r.phases("restore", &t)
	r.verified(&t)
	if err := r.box.Reload(); err != nil {
		return err
	}
	asked, err := r.answersAgain(ctx)
	if asked && err == nil {
		r.seconds("first-answer", time.Since(begin))
	}
	return err
}

func (r *run) clone(ctx context.Context, s plan.Step) error {
	if r.image == "" {
		return errNoImage
	}
	args := []string{"restore", "--json"}
	if s.Options.Get("name") == "" {
		args = append(args, "--name", r.name+"c")
	}
	o, err := r.command(ctx, append(append(args, s.Options.Flags()...), r.image)...)
	if err != nil {
		return err
	}
	r.seconds("clone", o.took)
	return nil
}

// kill does a step whose command gets SIGKILL after a time. What the command was
// doing is no failure of the run; what becomes of the container is asked by the
// steps that follow.
func (r *run) kill(ctx context.Context, s plan.Step) error {
	killed, cancel := context.WithTimeoutCause(ctx, time.Duration(s.After), errKilled)
	defer cancel()
	r.killing = true
	err := r.step(killed, s.Steps[0])
	r.killing = false
	if err != nil && ctx.Err() == nil {
		err = nil
	}
	return errors.Join(err, r.box.Reload())
}

var errKilled = errors.New("killed, as the experiment wants")

// check has the built-in program look at what it holds, or a case at what it has,
// which ends it.
func (r *run) check(ctx context.Context) error {
	if r.file.Workload.Case != "" {
		return r.checkCase(ctx)
	}
	info, err := os.Stat(r.box.Log())
	if err != nil {
		return err
	}
	if err := r.box.Kill(ctx, builtin.Check, false); err != nil {
		return err
	}
	return r.awaitLine(ctx, info.Size(), func(line string) (bool, error) {
		if what, ok := strings.CutPrefix(line, builtin.Differs); ok {
			return false, errors.New("after the restore: " + what)
		}
		return line == builtin.Checked, nil
	})
}

func (r *run) checkCase(ctx context.Context) error {
	if err := r.box.Kill(ctx, workload.GoAhead, false); err != nil {
		return err
	}
	code, err := r.box.Wait(ctx)
	if err != nil || code == 0 {
		return err
	}
	log, err := os.ReadFile(r.box.Log())
	return errors.Join(err, workload.Ended(string(log), code))
}

// awaitLine waits for a line of the container's log behind an offset.
func (r *run) awaitLine(ctx context.Context, from int64, is func(string) (bool, error)) error {
	f, err := os.OpenFile(r.box.Log(), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return err
	}
	found, last := errors.New("found"), ""
	err = r.box.FollowLog(ctx, f, func(l container.LogLine) error {
		last = l.Text
		yes, err := is(strings.TrimSuffix(l.Text, "\r"))
		if yes {
			return found
		}
		return err
	})
	switch {
	case err == found:
		return nil
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	return fmt.Errorf("it has ended; its last words: %q", last)
}

// settling is how long a status may take that is expected: a monitor that has seen
// a command killed thaws its container a moment later.
const settling = 5 * time.Second

func (r *run) expect(ctx context.Context, s plan.Step) error {
	if text := s.Options.Get("log"); text != "" {
		log, err := os.ReadFile(r.box.Log())
		if err != nil {
			return err
		}
		if !bytes.Contains(log, []byte(text)) {
			return fmt.Errorf("the log does not hold %q", text)
		}
	}
	want := s.Options.Get("status")
	for end := time.Now().Add(settling); want != ""; {
		if err := r.box.Reload(); err != nil {
			return err
		}
		status, err := r.box.Status()
		if err != nil || string(status) == want {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("the container is %s, not %s", status, want)
		}
		if err := wait(ctx, "5ms"); err != nil {
			return err
		}
	}
	return nil
}
