package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// link is a container's way to the bridge that runc and LXC share. crucible
// has a bridge of its own, made by its first container.
type link struct {
	*rig
	bridge string
	name   string // of the host's end, and of the network namespace
	number int
}

// The addresses are of RFC 2544's range, which is for benchmarks.
const (
	subnet = "198.18.77."
	bits   = "/24"
)

// reserveLink makes the bridge if need be and gives out an address.
func (r *rig) reserveLink(ctx context.Context, name string) (*link, error) {
	l := &link{rig: r, bridge: r.o.prefix + "br", name: name, number: 2 + r.made%250}
	if _, err := os.Stat("/sys/class/net/" + l.bridge); err == nil {
		return l, nil
	}
	if err := r.ip(ctx, "link add "+l.bridge+" type bridge forward_delay 0"); err != nil {
		return nil, err
	}
	r.later(func() error { return r.ip(context.Background(), "link del "+l.bridge) })
	return l, errors.Join(r.ip(ctx, "addr add "+subnet+"1"+bits+" dev "+l.bridge), r.ip(ctx, "link set "+l.bridge+" up"))
}

// newLink also makes the namespace and the pair of devices, as a network
// plug-in does for a runtime that is none.
func (r *rig) newLink(ctx context.Context, name string) (*link, error) {
	l, err := r.reserveLink(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := l.makeNamespace(); err != nil {
		return nil, errors.Join(err, l.remove())
	}
	inside := func(words string) error {
		_, _, err := r.run(ctx, command{argv: append([]string{"ip"}, strings.Fields(words)...), netns: l.netns()})
		return err
	}
	for _, step := range []func() error{
		func() error { return r.ip(ctx, "link add "+name+" type veth peer name eth0 netns "+l.netns()) },
		func() error { return r.ip(ctx, "link set "+name+" master "+l.bridge+" up") },
		func() error { return inside("link set lo up") },
		func() error { return inside("addr add " + l.prefix() + " dev eth0") },
		func() error { return inside("link set eth0 up") },
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, l.remove())
		}
	}
	return l, nil
}

// makeNamespace keeps a network namespace at a path, as `ip netns add` does,
// which would leave a mount on /run/netns behind.
func (l *link) makeNamespace() error {
	if err := os.WriteFile(l.netns(), nil, 0o600); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		done <- unix.Mount(self, l.netns(), "", unix.MS_BIND, "")
	}()
	return <-done
}

func (r *rig) ip(ctx context.Context, words string) error {
	return r.do(ctx, append([]string{"ip"}, strings.Fields(words)...)...)
}

func (l *link) address() string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("%s%d", subnet, l.number)
}

func (l *link) prefix() string { return l.address() + bits }

func (l *link) netns() string { return l.path("netns." + l.name) }

// remove deletes the devices, and the namespace. The latter alone would do, but
// the kernel may take its time with it.
func (l *link) remove() error {
	if l == nil {
		return nil
	}
	_ = l.ip(context.Background(), "link del "+l.name)
	return errors.Join(
		ignore(unix.Unmount(l.netns(), unix.MNT_DETACH), unix.EINVAL, unix.ENOENT),
		ignore(os.Remove(l.netns()), os.ErrNotExist))
}
