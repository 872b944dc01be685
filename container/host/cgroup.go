package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/cgroup"
)

func cgroupProbes() []probe {
	const group = "cgroups"
	return []probe{
		{group, "layout", true, askLayout,
			"containers cannot be frozen", "mount -t cgroup2 none /sys/fs/cgroup"},
		{group, "freezer", true, askFreezer,
			"containers cannot be frozen", "Linux 5.2 or newer, or CONFIG_CGROUP_FREEZER=y; root's rights on the hierarchy"},
		{group, "clone into a cgroup", false, askCloneInto,
			"a container's first process is moved to its cgroup after it was made: a few microseconds", "use cgroup v2 alone"},
	}
}

func askLayout() answer {
	layout, err := cgroup.Detect()
	if err != nil {
		return missing("%v", err)
	}
	var versions [3][]string
	for _, h := range layout.Hierarchies {
		versions[h.Version] = append(versions[h.Version], h.Controllers...)
	}
	text := layout.Mode()
	for version, controllers := range versions {
		if len(controllers) > 0 {
			text += fmt.Sprintf("; v%d: %s", version, strings.Join(controllers, " "))
		}
	}
	return good("%s", text)
}

// withCgroup gives f a group of ours, which is removed afterwards, and with it
// the directory of all our groups where there is no other.
func withCgroup(f func(*cgroup.Group) error) error {
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	group, err := layout.Create(fmt.Sprintf("probe-%d", os.Getpid()), nil)
	if err != nil {
		return err
	}
	return errors.Join(f(group), group.Remove(context.Background()), layout.Sweep())
}

// askFreezer freezes and thaws a group that has no task.
func askFreezer() answer {
	var path string
	err := withCgroup(func(group *cgroup.Group) error {
		ctx := context.Background()
		path = filepath.Dir(group.FreezerPath())
		_, err := group.Freeze(ctx, time.Second)
		return errors.Join(err, group.Thaw(ctx))
	})
	if err != nil {
		return unknown(err)
	}
	return good("%s", path)
}

func askCloneInto() answer {
	var directory *os.File
	err := withCgroup(func(group *cgroup.Group) (err error) {
		if directory, err = group.DirFD(); err != nil || directory == nil {
			return err
		}
		defer directory.Close()
		return tryChild(&syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(directory.Fd())})
	})
	if err == nil && directory == nil {
		return missing("the freezer is that of cgroup v1")
	}
	return verdict(err, unix.EBADF, unix.EINVAL)
}
