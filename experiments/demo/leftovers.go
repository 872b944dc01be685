package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"

	"crucible/container/cgroup"
)

// trace is what could be left of a demo: all of it carries the state root's
// path, a container's name or the bridge's.
type trace struct {
	root   string
	names  []string // of containers
	bridge string
}

// wait looks for leftovers until there are none. Monitors end a moment after
// the command that told them to, and the kernel takes a namespace down later.
func (t trace) wait(limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		left, err := t.look()
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New(strings.Join(left, ", "))
		}
	}
}

func (t trace) look() (left []string, err error) {
	for _, kind := range []func() ([]string, error){t.processes, t.cgroups, t.mounts, t.links, t.tables, t.state} {
		found, err := kind()
		if err != nil {
			return nil, fmt.Errorf("look for what is left: %w", err)
		}
		left = append(left, found...)
	}
	return left, nil
}

// processes are those that name the state root in their arguments, as monitors
// do, or have it in their mount namespace.
func (t trace) processes() (left []string, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' || e.Name() == fmt.Sprint(os.Getpid()) {
			continue
		}
		// An error means that it has ended meanwhile.
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		mounts, _ := os.ReadFile("/proc/" + e.Name() + "/mountinfo")
		if bytes.Contains(line, []byte(t.root)) || bytes.Contains(mounts, []byte(t.root)) {
			left = append(left, fmt.Sprintf("process %s (%s)", e.Name(), bytes.TrimSpace(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))))
		}
	}
	return left, nil
}

func (t trace) cgroups() (left []string, err error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	for _, h := range layout.Hierarchies {
		for _, name := range t.names {
			dir := filepath.Join(h.Mount, cgroup.Top, name)
			if _, err := os.Stat(dir); err == nil {
				left = append(left, "cgroup "+dir)
			}
		}
	}
	return left, nil
}

func (t trace) mounts() (left []string, err error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); strings.Contains(line, t.root) && len(fields) > 4 {
			left = append(left, "mount "+fields[4])
		}
	}
	return left, nil
}

// links are known by their alias: the bridge, and each container's port of it.
func (t trace) links() (left []string, err error) {
	files, err := filepath.Glob("/sys/class/net/*/ifalias")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && bytes.Contains(text, []byte(t.root)) {
			left = append(left, "link "+filepath.Base(filepath.Dir(f)))
		}
	}
	return left, nil
}

func (t trace) tables() (left []string, err error) {
	if t.bridge == "" {
		return nil, nil
	}
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	for _, one := range all {
		if strings.HasSuffix(one.Name, "-"+t.bridge) {
			left = append(left, "nftables table "+one.Name)
		}
	}
	return left, nil
}

func (t trace) state() (left []string, err error) {
	containers, err := os.ReadDir(filepath.Join(t.root, "containers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, c := range containers {
		left = append(left, "container "+c.Name())
	}
	drafts, err := os.ReadDir(filepath.Join(t.root, "images", ".drafts"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	drafts = slices.DeleteFunc(drafts, func(e fs.DirEntry) bool { return !e.IsDir() })
	for _, d := range drafts {
		left = append(left, "draft "+d.Name())
	}
	return left, nil
}
