package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// lxc is the distribution's, with as little as it can do with: a proc, a /dev
// of its own, no terminal, five namespaces and no cgroup namespace.
type lxc struct{ *rig }

func (s *lxc) Name() string { return nameLXC }

func (s *lxc) home() string { return s.path("lxc") }

// command runs one of LXC's programs, which find CRIU in PATH.
func (s *lxc) command(ctx context.Context, argv ...string) (string, time.Duration, error) {
	return s.rig.run(ctx, command{
		argv: append([]string{argv[0], "-P", s.home(), "-o", s.path("lxc.log")}, argv[1:]...),
		env:  []string{"PATH=" + filepath.Dir(s.o.criu) + ":" + os.Getenv("PATH")},
	})
}

// config writes a container's definition and returns the directory it is in.
func (s *lxc) config(name string, p program, l *link) (string, error) {
	lines := []string{
		"lxc.rootfs.path = dir:" + s.root,
		"lxc.uts.name = " + name,
		"lxc.namespace.clone = pid mnt uts ipc net",
		"lxc.mount.auto = proc:rw",
		"lxc.autodev = 1",
		"lxc.console.path = none",
		"lxc.tty.max = 0",
		"lxc.pty.max = 1",
		"lxc.init.cmd = " + strings.Join(p.argv, " "),
	}
	if l == nil {
		lines = append(lines, "lxc.net.0.type = empty")
	} else {
		lines = append(lines, "lxc.net.0.type = veth", "lxc.net.0.link = "+l.bridge, "lxc.net.0.flags = up",
			"lxc.net.0.name = eth0", "lxc.net.0.veth.pair = "+l.name, "lxc.net.0.ipv4.address = "+l.prefix())
	}
	dir := filepath.Join(s.home(), name)
	return dir, errors.Join(os.MkdirAll(dir, 0o755),
		os.WriteFile(dir+"/config", []byte(strings.Join(lines, "\n")+"\n"), 0o644))
}

func (s *lxc) Launch(ctx context.Context, argv ...string) (time.Duration, error) {
	name := s.name()
	dir, err := s.config(name, program{argv: argv}, nil)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	_, took, err := s.command(ctx, append([]string{"lxc-execute", "-n", name, "--"}, argv...)...)
	return took, err
}

func (s *lxc) Start(ctx context.Context, name string, p program) (_ box, took time.Duration, err error) {
	b := &lxcBox{lxc: s, name: name}
	defer func() {
		if err != nil {
			_ = b.Remove()
		}
	}()
	if p.bridge {
		if b.link, err = s.reserveLink(ctx, name); err != nil {
			return nil, 0, err
		}
	}
	if b.dir, err = s.config(name, p, b.link); err != nil {
		return nil, 0, err
	}
	if _, took, err = s.command(ctx, "lxc-start", "-d", "-n", name); err != nil {
		return nil, took, err
	}
	return b, took, b.find(ctx)
}

// lxcBox is a container of LXC.
type lxcBox struct {
	*lxc
	name string
	dir  string
	link *link
	pid  int
}

func (b *lxcBox) find(ctx context.Context) error {
	out, _, err := b.command(ctx, "lxc-info", "-n", b.name, "-p", "-H")
	if err != nil {
		return err
	}
	if b.pid, err = strconv.Atoi(strings.TrimSpace(out)); err != nil {
		return fmt.Errorf("lxc-info: pid %q: %w", out, err)
	}
	return nil
}

func (b *lxcBox) Pid() int        { return b.pid }
func (b *lxcBox) Address() string { return b.link.address() }

func (b *lxcBox) image() string { return b.dir + "/image" }

func (b *lxcBox) Checkpoint(ctx context.Context, leave bool) (time.Duration, error) {
	if err := afresh(b.image()); err != nil {
		return 0, err
	}
	args := []string{"lxc-checkpoint", "-n", b.name, "-D", b.image()}
	if !leave {
		args = append(args, "-s")
	}
	_, took, err := b.command(ctx, args...)
	if err == nil && !leave {
		// Its monitor goes on for a moment, and would answer for the next one.
		_, _, err = b.command(ctx, "lxc-wait", "-n", b.name, "-s", "STOPPED", "-t", "30")
	}
	return took, withCRIULog(err, b.image()+"/dump.log")
}

func (b *lxcBox) Restore(ctx context.Context) (time.Duration, error) {
	_, took, err := b.command(ctx, "lxc-checkpoint", "-r", "-n", b.name, "-D", b.image())
	if err == nil {
		err = b.find(ctx)
	}
	return took, withCRIULog(err, b.image()+"/restore.log")
}

func (b *lxcBox) Remove() error {
	ctx := context.Background()
	_, _, _ = b.command(ctx, "lxc-stop", "-k", "-n", b.name) // fails if it has stopped
	_, _, err := b.command(ctx, "lxc-wait", "-n", b.name, "-s", "STOPPED", "-t", "30")
	return errors.Join(err, os.RemoveAll(b.dir))
}
