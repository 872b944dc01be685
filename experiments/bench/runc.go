package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// runc is the distribution's, with a bundle as small as it can be: a proc, a
// tmpfs on /dev (runc wants to make device nodes), a devpts, five namespaces.
type runc struct{ *rig }

func (s *runc) Name() string { return nameRunc }

func (s *runc) command(ctx context.Context, args ...string) (string, time.Duration, error) {
	log := s.path("runc.log." + args[len(args)-1]) // the container's name is always the last
	defer os.Remove(log)
	out, took, err := s.rig.run(ctx, command{mute: true,
		argv: append([]string{"runc", "--root", s.path("runc"), "--criu", s.o.criu, "--log", log}, args...)})
	if err != nil {
		said, _ := os.ReadFile(log)
		err = fmt.Errorf("%w: %s", err, lastLines(said))
	}
	return out, took, err
}

// object is a piece of JSON.
type object map[string]any

// bundle writes the directory that defines a container. netns is the path of a
// network namespace, or empty for one that runc makes.
func (s *runc) bundle(name, netns string, argv []string) (string, error) {
	network := object{"type": "network"}
	if netns != "" {
		network["path"] = netns
	}
	config, err := json.Marshal(object{
		"ociVersion": "1.0.2",
		"process": object{"cwd": "/", "args": argv, "user": object{"uid": 0, "gid": 0},
			"env": []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}},
		"root": object{"path": s.root}, "hostname": name,
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=65536k"}},
			{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		"linux": object{"namespaces": []object{{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, network}},
	})
	if err != nil {
		return "", err
	}
	dir := s.path("bundles", name)
	return dir, errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(dir+"/config.json", config, 0o600))
}

func (s *runc) Launch(ctx context.Context, argv ...string) (time.Duration, error) {
	name := s.name()
	dir, err := s.bundle(name, "", argv)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	_, took, err := s.command(ctx, "run", "--bundle", dir, name)
	return took, err
}

func (s *runc) Start(ctx context.Context, name string, p program) (box, time.Duration, error) {
	b, err := s.prepare(ctx, name, p)
	if err != nil {
		return nil, 0, err
	}
	_, took, err := s.command(ctx, "run", "-d", "--bundle", b.dir, "--pid-file", b.pidFile(), name)
	if err == nil {
		err = b.find()
	}
	if err != nil {
		_ = b.Remove()
		return nil, took, err
	}
	return b, took, nil
}

// prepare does what is not runc's: the link and the bundle.
func (s *runc) prepare(ctx context.Context, name string, p program) (b *runcBox, err error) {
	b = &runcBox{runc: s, name: name}
	netns := ""
	if p.bridge {
		if b.link, err = s.newLink(ctx, name); err != nil {
			return nil, err
		}
		netns = b.link.netns()
	}
	if b.dir, err = s.bundle(name, netns, p.argv); err != nil {
		return nil, errors.Join(err, b.Remove())
	}
	return b, nil
}

// runcBox is a container of runc.
type runcBox struct {
	*runc
	name string
	dir  string // of the bundle
	link *link
	pid  int
}

func (b *runcBox) pidFile() string { return b.dir + "/pid" }

func (b *runcBox) find() (err error) {
	b.pid, err = readNumber(b.pidFile())
	return err
}

func readNumber(file string) (int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return n, nil
}

func (b *runcBox) Pid() int        { return b.pid }
func (b *runcBox) Address() string { return b.link.address() }

// options are those of checkpoint and restore alike.
func (b *runcBox) options() []string {
	o := []string{"--image-path", b.dir + "/image", "--work-path", b.dir + "/work"}
	if b.link != nil {
		o = append(o, "--tcp-established")
	}
	return o
}

func (b *runcBox) Checkpoint(ctx context.Context, leave bool) (time.Duration, error) {
	if err := errors.Join(afresh(b.dir+"/image"), afresh(b.dir+"/work")); err != nil {
		return 0, err
	}
	args := append([]string{"checkpoint"}, b.options()...)
	if leave {
		args = append(args, "--leave-running")
	}
	_, took, err := b.command(ctx, append(args, b.name)...)
	return took, withCRIULog(err, b.dir+"/work/dump.log")
}

func (b *runcBox) Restore(ctx context.Context) (time.Duration, error) {
	args := append([]string{"restore", "-d", "--bundle", b.dir, "--pid-file", b.pidFile()}, b.options()...)
	_, took, err := b.command(ctx, append(args, b.name)...)
	if err == nil {
		err = b.find()
	}
	return took, withCRIULog(err, b.dir+"/work/restore.log")
}

// clone restores the image of another box under this one's name.
func (b *runcBox) clone(ctx context.Context, of *runcBox) error {
	_, _, err := b.command(ctx, "restore", "-d", "--bundle", b.dir, "--pid-file", b.pidFile(),
		"--image-path", of.dir+"/image", "--work-path", b.dir+"/work", b.name)
	return withCRIULog(err, b.dir+"/work/restore.log")
}

func (b *runcBox) Remove() error {
	_, _, err := b.command(context.Background(), "delete", "-f", b.name)
	return errors.Join(err, b.link.remove(), os.RemoveAll(b.dir))
}

// withCRIULog adds what CRIU said to an error.
func withCRIULog(err error, file string) error {
	if err == nil {
		return nil
	}
	data, readErr := os.ReadFile(file)
	if readErr != nil {
		return err
	}
	var errors []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "Error") {
			errors = append(errors, strings.TrimSpace(line))
		}
	}
	return fmt.Errorf("%w; CRIU: %s", err, strings.Join(errors[max(0, len(errors)-3):], "; "))
}
