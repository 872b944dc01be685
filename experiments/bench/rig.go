package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rig is what all sections stand on: the programs, a directory, names, and the
// list of what has to be undone.
type rig struct {
	o   options
	dir string // everything is below it, and it goes at the end
	// root shows the host's root file system alone, without what is mounted
	// below it: the root of all containers that are not crucible's. A bind
	// costs those systems less than the overlay that crucible mounts.
	root string
	self string // a copy of this program, where containers see it
	made int

	undo []func() error
	seen map[string]bool // leftovers() that were there before
}

func newRig(o options) (r *rig, err error) {
	r = &rig{o: o, seen: map[string]bool{}}
	for _, dir := range leftovers() {
		_, err := os.Stat(dir)
		r.seen[dir] = err == nil
	}
	if r.dir, err = os.MkdirTemp(o.dir, o.prefix+"-"); err != nil {
		return nil, err
	}
	r.later(func() error { return os.RemoveAll(r.dir) })
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	// Users other than root pass through on the way to the programs.
	if err := os.Chmod(r.dir, 0o755); err != nil {
		return nil, err
	}
	r.root, r.self = r.path("root"), r.path("bench")
	if err := os.Mkdir(r.root, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mount("/", r.root, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("bind / to %s: %w", r.root, err)
	}
	r.later(func() error { return ignore(unix.Unmount(r.root, unix.MNT_DETACH), unix.EINVAL) })
	if err := unix.Mount("", r.root, "", unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make %s private: %w", r.root, err)
	}
	if err := copyProgram(r.self); err != nil {
		return nil, err
	}
	if _, err := os.Stat(r.root + r.self); err != nil {
		return nil, fmt.Errorf("directory %s: must be on the file system of /, for all containers to see it", o.dir)
	}
	r.later(func() error { return (&crucible{r}).sweep("") })
	return r, nil
}

// copyProgram copies the running program.
func copyProgram(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	into, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(into, from)
	return errors.Join(err, into.Close())
}

func (r *rig) path(elements ...string) string {
	return filepath.Join(append([]string{r.dir}, elements...)...)
}

// name makes up the name of a container; it serves as the name of a link, too.
func (r *rig) name() string {
	r.made++
	return fmt.Sprintf("%s%d", r.o.prefix, r.made)
}

// later registers what has to be undone at the end.
func (r *rig) later(f func() error) { r.undo = append(r.undo, f) }

// close undoes everything, the last first.
func (r *rig) close() error {
	var errs []error
	for i := len(r.undo) - 1; i >= 0; i-- {
		errs = append(errs, r.undo[i]())
	}
	r.undo = nil
	errs = append(errs, os.RemoveAll("/run/lxc/lock"+r.dir)) // LXC's locks, by path
	for _, dir := range leftovers() {
		if !r.seen[dir] {
			_ = os.Remove(dir) // refused if another one is using it
		}
	}
	return errors.Join(errs...)
}

// leftovers are the directories that the other systems make once for
// themselves and never remove, the inner ones first.
func leftovers() []string {
	v1, _ := filepath.Glob("/sys/fs/cgroup/*/lxc.pivot")
	return append(v1, "/sys/fs/cgroup/lxc.pivot", "/run/lxc/lock/var/tmp", "/run/lxc/lock/var",
		"/run/lxc/lock", "/run/lxc", "/run/runc")
}

func ignore(err error, harmless ...error) error {
	for _, h := range harmless {
		if errors.Is(err, h) {
			return nil
		}
	}
	return err
}

// afresh makes a directory empty.
func afresh(dir string) error {
	return errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700))
}

// decode reads the JSON that a command printed.
func decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%w in %q", err, data)
	}
	return nil
}

// patience is how long anything may take that has no event to wait for.
const patience = 30 * time.Second

// until repeats what has no event to wait for.
func until(ctx context.Context, what string, try func() error) error {
	deadline := time.Now().Add(patience)
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := try()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("%s: %w after %v", what, err, patience)
		}
		time.Sleep(pause)
	}
}

// gone waits for the end of a process that is not our child.
func gone(pid int) error {
	return until(context.Background(), fmt.Sprintf("end of process %d", pid), func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return nil
		}
		return errors.New("is still there")
	})
}
