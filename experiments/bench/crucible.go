package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
)

// crucible is the built program, with a state root of its own.
type crucible struct{ *rig }

func (s *crucible) Name() string { return nameCrucible }

func (s *crucible) command(ctx context.Context, args ...string) (string, time.Duration, error) {
	return s.run(ctx, command{
		argv: append([]string{s.o.crucible}, args...),
		env:  []string{"CRUCIBLE_ROOT=" + s.path("crucible"), "CRUCIBLE_CRIU=" + s.o.criu},
	})
}

func (s *crucible) Launch(ctx context.Context, argv ...string) (time.Duration, error) {
	_, took, err := s.command(ctx, append([]string{"run", "--rm", "--"}, argv...)...)
	return took, err
}

func (s *crucible) Start(ctx context.Context, name string, p program) (box, time.Duration, error) {
	b := &crucibleBox{crucible: s, name: name}
	args := []string{"run", "-d", "--name", name}
	if p.bridge {
		args = append(args, "--net", "bridge")
	}
	_, took, err := s.command(ctx, append(append(args, "--"), p.argv...)...)
	if err == nil {
		err = b.find(ctx)
	}
	if err != nil {
		_ = b.Remove()
		return nil, took, err
	}
	return b, took, nil
}

// crucibleBox is a container of crucible.
type crucibleBox struct {
	*crucible
	name    string
	pid     int
	address string
	image   string
	frozen  time.Duration // as crucible tells it, of the last checkpoint
}

// find asks crucible for the container's first process and its address.
func (b *crucibleBox) find(ctx context.Context) error {
	out, _, err := b.command(ctx, "info", "--json", b.name)
	if err != nil {
		return err
	}
	var info struct {
		State struct {
			Init       struct{ Pid int }
			Attachment struct{ Address string } // with its prefix
		}
	}
	err = decode([]byte(out), &info)
	b.pid = info.State.Init.Pid
	b.address, _, _ = strings.Cut(info.State.Attachment.Address, "/")
	return err
}

func (b *crucibleBox) Pid() int        { return b.pid }
func (b *crucibleBox) Address() string { return b.address }

func (b *crucibleBox) Checkpoint(ctx context.Context, leave bool) (time.Duration, error) {
	if b.image != "" {
		if _, _, err := b.command(ctx, "image", "rm", b.image); err != nil {
			return 0, err
		}
	}
	args := []string{"checkpoint", "--json", b.name}
	if leave {
		args = append(args, "--leave-running")
	}
	out, took, err := b.command(ctx, args...)
	if err != nil {
		return took, err
	}
	var r struct {
		Image  string        `json:"image"`
		Frozen time.Duration `json:"frozen"`
	}
	err = decode([]byte(out), &r)
	b.image, b.frozen = r.Image, r.Frozen
	return took, err
}

func (b *crucibleBox) Restore(ctx context.Context) (time.Duration, error) { return b.restore(ctx) }

func (b *crucibleBox) restore(ctx context.Context, flags ...string) (time.Duration, error) {
	out, took, err := b.command(ctx, append([]string{"restore", "--json", b.name}, flags...)...)
	if err != nil {
		return took, err
	}
	var r struct {
		Pid int `json:"pid"`
	}
	err = decode([]byte(out), &r)
	b.pid = r.Pid
	return took, err
}

// firstAnswer restores the container and asks it as soon as it runs: a command
// with --lazy goes on until the memory has been checked.
func (b *crucibleBox) firstAnswer(ctx context.Context, socket string, flags ...string) (time.Duration, error) {
	begin, done := time.Now(), make(chan error, 1)
	go func() {
		_, err := b.restore(ctx, flags...)
		done <- err
	}()
	pid := 0
	for pid == 0 {
		select {
		case err := <-done:
			if err != nil {
				return 0, err
			}
			done <- nil
			pid = b.pid
		case <-time.After(200 * time.Microsecond): // nothing tells of a file that is replaced at such a pace
			pid = b.running()
		}
	}
	_, err := ask(pid, socket, "touch")
	took := time.Since(begin)
	return took, errors.Join(err, <-done)
}

// running is the first process of the container once that is recorded as running.
func (b *crucibleBox) running() int {
	data, err := os.ReadFile(b.path("crucible", "containers", b.name, "state.json"))
	if err != nil {
		return 0
	}
	var state struct {
		Recorded string
		Init     struct{ Pid int }
	}
	if json.Unmarshal(data, &state) != nil || state.Recorded != "running" {
		return 0
	}
	return state.Init.Pid
}

// clones makes many containers of the image at once.
func (b *crucibleBox) clones(ctx context.Context, count int) (time.Duration, error) {
	_, took, err := b.command(ctx, "restore", "--count", strconv.Itoa(count), "--name", b.name+"-", b.image)
	return took, err
}

func (b *crucibleBox) Remove() error {
	ctx := context.Background()
	if b.image != "" {
		_, _, _ = b.command(ctx, "image", "rm", b.image)
		b.image = ""
	}
	_, _, err := b.command(ctx, "delete", "-f", b.name)
	if b.pid == 0 { // it never came up
		return nil
	}
	return err
}

// sweep removes all containers but one.
func (s *crucible) sweep(but string) error {
	ctx := context.Background()
	out, _, err := s.command(ctx, "list", "--json")
	if err != nil {
		return err
	}
	var all []struct{ Name string }
	if err := decode([]byte(out), &all); err != nil {
		return err
	}
	args := []string{"delete", "-f"}
	for _, l := range all {
		if l.Name != but {
			args = append(args, l.Name)
		}
	}
	if len(args) == 2 {
		return nil
	}
	_, _, err = s.command(ctx, args...)
	return err
}
