package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"crucible/checkpoint"
	"crucible/restore"
)

// options are what can be chosen.
type options struct {
	Crucible, Redis string
	Clones          int
	Before, After   time.Duration
}

// demo is one showing.
type demo struct {
	o      options
	s      *screen
	c      crucible
	name   string // of the container
	bridge string
	clones []restore.Result
	failed bool
}

var errInterrupted = errors.New("interrupted")

// show goes through all of it, and cleans up whatever happened.
func show(ctx context.Context, o options, s *screen) (err error) {
	if err := o.complete(); err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "crucible-demo-")
	if err != nil {
		return err
	}
	// Its last part is unique, and serves as the container's name too: names
	// are one for all state roots of a host, in the cgroups.
	d := &demo{o: o, s: s, c: crucible{o.Crucible, root}, name: "demo" + strings.TrimPrefix(filepath.Base(root), "crucible-demo-")}
	defer func() { err = errors.Join(err, d.clean()) }()
	if err := d.play(ctx); err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	if d.failed {
		return errors.New("something did not hold, see above")
	}
	return nil
}

func (o *options) complete() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("must be root: containers need it")
	}
	if o.Crucible, err = filepath.Abs(o.Crucible); err != nil {
		return err
	}
	if _, err := os.Stat(o.Crucible); err != nil {
		return fmt.Errorf("%w: build it first, with `make build`", err)
	}
	if o.Redis == "" {
		o.Redis = "redis-server"
	}
	if o.Redis, err = exec.LookPath(o.Redis); err != nil {
		return fmt.Errorf("%w: scripts/setup --tests installs it", err)
	}
	return nil
}

// holds records whether something that was promised is so.
func (d *demo) holds(err error, what string) {
	d.s.verdict(err, what)
	d.failed = d.failed || err != nil
}

func (d *demo) play(ctx context.Context) error {
	d.s.title("A redis-server is taken away and brought back under a client's hands")
	address, err := d.run(ctx)
	if err != nil {
		return err
	}
	conn, err := dialRedis(ctx, address+":6379")
	if err != nil {
		return fmt.Errorf("connect to redis: %w", err)
	}
	// Ctrl-C also ends a wait for an answer.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	w := startWriter(conn)
	if err := d.write(ctx, w, d.o.Before, "before the checkpoint"); err != nil {
		return err
	}
	before := w.acked.Load()
	out, err := d.checkpoint(ctx)
	if err != nil {
		return err
	}
	in, err := d.restore(ctx, address)
	if err != nil {
		return err
	}
	if err := d.write(ctx, w, d.o.After, "after the restore"); err != nil {
		return err
	}
	acked, err := w.stop()
	if err != nil {
		return err
	}
	if err := d.cloned(ctx, out.Ref); err != nil {
		return err
	}
	d.s.phases("checkpoint", out.Phases)
	d.s.phases("restore", in.Phases)
	d.s.line("")
	d.holds(w.after(before), fmt.Sprintf("the connection %s - %s went on", conn.LocalAddr(), conn.RemoteAddr()))
	d.holds(verify(conn, acked), fmt.Sprintf("all %s keys that were acknowledged are there", thousands(acked)))
	d.holds(d.limit(w.longest), fmt.Sprintf("the longest gap between two acknowledged writes was %s ms", milliseconds(w.longest)))
	return d.checkClones(ctx, before)
}

// after checks that keys were acknowledged after the first ones.
func (w *writer) after(before int64) error {
	if n := w.acked.Load(); n <= before+1 { // one may have been under way
		return fmt.Errorf("%d keys before the checkpoint, %d after the restore", before, n)
	}
	return nil
}

// limit: what a client must not notice more than. A lost packet costs it a
// second and more, the usual first time-out (RFC 6298), so that a gap below
// tells that none was lost beyond repair.
func (d *demo) limit(gap time.Duration) error {
	if gap > 5*time.Second {
		return errors.New("that is too long")
	}
	return nil
}

func (d *demo) run(ctx context.Context) (address string, err error) {
	d.s.now("starting redis-server")
	start := time.Now()
	err = d.c.run(ctx, nil, "run", "--name", d.name, "-d", "--net", "bridge", "--",
		d.o.Redis, "--port", "6379", "--protected-mode", "no", "--save", "", "--appendonly", "no")
	if err != nil {
		return "", err
	}
	took := time.Since(start)
	var info struct {
		State struct {
			Attachment struct {
				Bridge  string `json:"bridge"`
				Address string `json:"address"`
			} `json:"attachment"`
		} `json:"state"`
	}
	if err := d.c.run(ctx, &info, "info", "--json", d.name); err != nil {
		return "", err
	}
	at := info.State.Attachment
	d.bridge = at.Bridge
	address, _, _ = strings.Cut(at.Address, "/")
	if address == "" {
		return "", errors.New("crucible info: the container has no address")
	}
	d.s.step("run", fmt.Sprintf("redis-server in the container %s at %s", d.name, address), took)
	return address, nil
}

// write lets the writer write for a while and shows its progress.
func (d *demo) write(ctx context.Context, w *writer, duration time.Duration, when string) error {
	first := w.acked.Load()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(duration); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ended:
			return w.err
		case <-tick.C:
			d.s.now(fmt.Sprintf("writing over one TCP connection: %s keys", thousands(w.acked.Load())))
		case <-end:
			d.s.step("write", fmt.Sprintf("%s keys acknowledged %s", thousands(w.acked.Load()-first), when), duration)
			return nil
		}
	}
}

func (d *demo) checkpoint(ctx context.Context) (r checkpoint.Result, err error) {
	d.s.now("checkpoint")
	start := time.Now()
	if err := d.c.run(ctx, &r, "checkpoint", "--json", d.name); err != nil {
		return r, err
	}
	took := time.Since(start)
	all, err := d.c.list(ctx)
	if err != nil {
		return r, err
	}
	if len(all) != 1 || all[0].Status != "stopped" {
		return r, fmt.Errorf("the container should be stopped: %+v", all)
	}
	size, err := sizeOf(r.Dir)
	if err != nil {
		return r, err
	}
	d.s.step("checkpoint", fmt.Sprintf("image %s of %.1f MiB, and no process is left", r.Ref, float64(size)/(1<<20)), took)
	return r, nil
}

func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	})
	return size, err
}

func (d *demo) restore(ctx context.Context, address string) (r restore.Result, err error) {
	d.s.now("restore")
	start := time.Now()
	if err := d.c.run(ctx, &r, "restore", "--json", d.name); err != nil {
		return r, err
	}
	took := time.Since(start)
	if r.Address != address {
		return r, fmt.Errorf("the container came back at %s, not at %s", r.Address, address)
	}
	d.s.step("restore", "new namespaces, new cgroup, the same address", took)
	return r, nil
}

func (d *demo) cloned(ctx context.Context, ref string) error {
	if d.o.Clones == 0 {
		return nil
	}
	d.s.now("clones")
	start := time.Now()
	if err := d.c.run(ctx, &d.clones, "restore", "--json", "--count", fmt.Sprint(d.o.Clones), ref); err != nil {
		return err
	}
	d.s.step("clone", fmt.Sprintf("%d more from the same image, beside it", len(d.clones)), time.Since(start))
	return nil
}

// checkClones asks every clone for the keys that existed at the checkpoint, and
// whether it is one of its own.
func (d *demo) checkClones(ctx context.Context, keys int64) error {
	if len(d.clones) != d.o.Clones {
		d.holds(fmt.Errorf("there are %d", len(d.clones)), fmt.Sprintf("%d clones", d.o.Clones))
	}
	seen := map[string]bool{}
	for _, one := range d.clones {
		err := checkClone(ctx, one, keys)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if seen[one.Address] {
			err = errors.Join(err, errors.New("another one has that address"))
		}
		seen[one.Address] = true
		d.holds(err, fmt.Sprintf("%s answers at %s, with the %s keys of before the checkpoint", one.Name, one.Address, thousands(keys)))
	}
	return nil
}

func checkClone(ctx context.Context, one restore.Result, keys int64) error {
	conn, err := dialRedis(ctx, one.Address+":6379")
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := verify(conn, keys); err != nil {
		return err
	}
	answers, err := conn.do(encode("SETNX", "mine", one.Name), encode("GET", "mine"))
	if err != nil {
		return err
	}
	if answers[0] != "1" || answers[1] != one.Name {
		return fmt.Errorf("it has the data of %q", answers[1])
	}
	return nil
}

// clean deletes everything and makes sure that it is gone. It is not stopped
// by Ctrl-C.
func (d *demo) clean() error {
	d.s.now("cleaning up")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	names := []string{d.name}
	for i := range d.o.Clones {
		names = append(names, fmt.Sprintf("%s-%d", d.name, i+1))
	}
	err := d.c.deleteAll(ctx)
	t := trace{root: d.c.root, names: names, bridge: d.bridge}
	err = errors.Join(err, t.wait(10*time.Second))
	d.s.verdict(err, "no process, cgroup, mount, link, nftables table or state is left")
	if err != nil {
		return fmt.Errorf("clean up (state is in %s): %w", d.c.root, err)
	}
	return os.RemoveAll(d.c.root)
}
