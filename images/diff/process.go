package diff

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"crucible/images"
	"crucible/images/inspect"
	"crucible/images/inspect/criufile"
)

// processes compares the tree, the credentials, and what is open.
func (c *comparison) processes(ctx context.Context) error {
	a, err := inspect.Read(c.a)
	if err != nil {
		return err
	}
	b, err := inspect.Read(c.b)
	if err != nil {
		return err
	}
	for _, p := range a.Processes {
		other := b.Process(p.Pid)
		if other == nil {
			c.add(Difference{Section: Processes, Process: p.Pid, Change: Removed, What: p.Command()})
			continue
		}
		if err := c.process(ctx, p, other); err != nil {
			return err
		}
	}
	for _, p := range b.Processes {
		if a.Process(p.Pid) == nil {
			c.add(Difference{Section: Processes, Process: p.Pid, Change: Added, What: p.Command()})
		}
	}
	return nil
}

func (c *comparison) process(ctx context.Context, a, b *inspect.Process) error {
	// Ids of users are among the credentials; threads, their memory and what
	// they have open are compared one by one.
	ra, err := recordOf(a, "uid", "gid", "groups", "memoryBytes", "threads")
	if err != nil {
		return err
	}
	rb, err := recordOf(b, "uid", "gid", "groups", "memoryBytes", "threads")
	if err != nil {
		return err
	}
	if changed := fields(ra, rb); changed != nil {
		c.add(Difference{Section: Processes, Process: b.Pid, Change: Changed, What: b.Command(), Fields: changed})
	}
	if err := c.threads(ctx, a, b); err != nil {
		return err
	}
	return c.descriptors(a, b)
}

// threads compares what CRIU says of each thread: credentials, signals, limits,
// timers, scheduling, registers.
func (c *comparison) threads(ctx context.Context, a, b *inspect.Process) error {
	read := func(i *images.Image, p *inspect.Process) (rest, credentials []thing, err error) {
		for n, t := range p.Threads {
			r, cred, err := threadRecord(ctx, i, t.Tid)
			if err != nil {
				return nil, nil, err
			}
			what := p.Command()
			if n > 0 {
				what = fmt.Sprintf("thread %d (%s)", t.Tid, t.Comm)
			}
			rest, credentials = append(rest, thing{what, r}), append(credentials, thing{what, cred})
		}
		return rest, credentials, nil
	}
	restA, credA, err := read(c.a, a)
	if err != nil {
		return err
	}
	restB, credB, err := read(c.b, b)
	if err != nil {
		return err
	}
	if len(restA) > 0 && len(restB) > 0 { // the first threads are the same, whatever the command
		restA[0].what, credA[0].what = restB[0].what, credB[0].what
	}
	c.things(Processes, b.Pid, restA, restB)
	// A thread that is only in one has been said.
	credA, credB = common(credA, credB), common(credB, credA)
	c.things(Credentials, b.Pid, credA, credB)
	return nil
}

// common are the things of a that b has, too.
func common(a, b []thing) (list []thing) {
	for _, t := range a {
		if slices.ContainsFunc(b, func(o thing) bool { return o.what == t.what }) {
			list = append(list, t)
		}
	}
	return list
}

// threadRecord is all that is in a core-TID.img.
func threadRecord(ctx context.Context, i *images.Image, tid int) (rest, credentials record, err error) {
	var text bytes.Buffer
	path := filepath.Join(i.CRIUDir(), "core-"+strconv.Itoa(tid)+".img")
	err = criufile.Decode(ctx, &text, path, criufile.DecodeOptions{})
	if errors.Is(err, fs.ErrNotExist) { // a zombie, or a helper
		return rest, credentials, nil
	}
	if err != nil {
		return rest, credentials, fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	all, err := parseRecord(text.Bytes(), "magic", "entries.0.ids", "entries.0.tc.flags", "*.cg_set", "*.clear_tid_addr", "*.comm", "entries.0.mtype")
	if err != nil {
		return rest, credentials, fmt.Errorf("image %s: %s: %w", i.Ref(), filepath.Base(path), err)
	}
	floats := sha256.New()
	for _, name := range all.names {
		short := strings.TrimPrefix(name, "entries.0.")
		value := all.values[name]
		if cred, is := strings.CutPrefix(short, "thread_core.creds."); is {
			credentials.set(cred, value)
			continue
		}
		if strings.HasPrefix(short, "thread_core.seccomp_") {
			credentials.set(strings.TrimPrefix(short, "thread_core."), value)
			continue
		}
		for _, prefix := range []string{"thread_core.", "tc.", "thread_info.", "ti_aarch64."} {
			short = strings.TrimPrefix(short, prefix)
		}
		if strings.HasPrefix(short, "fpregs.") || strings.HasPrefix(short, "fpsimd.") { // thousands of digits
			fmt.Fprintln(floats, short, value)
			continue
		}
		rest.set(strings.Replace(short, "rlimits.rlimits.", "rlimits.", 1), value)
	}
	rest.set("floating-point registers", "sha256 "+hex.EncodeToString(floats.Sum(nil)[:8]))
	return rest, credentials, nil
}

// descriptors compares what two processes have open. What only CRIU or the
// kernel know a file by is no difference.
func (c *comparison) descriptors(a, b *inspect.Process) error {
	list := func(p *inspect.Process) (files, sockets []thing, err error) {
		for _, d := range p.Descriptors {
			r, err := recordOf(d, "fd", "file.id", "file.holders", "file.pipe.id", "file.socket.inode", "*.inode")
			if err != nil {
				return nil, nil, err
			}
			for n, name := range r.names { // "position", not "file.position"
				short := strings.TrimPrefix(strings.TrimPrefix(name, "file."), "socket.")
				r.names[n] = short
				r.values[short] = r.values[name]
			}
			t := thing{fmt.Sprintf("fd %d %s", d.FD, d.File.Kind), r}
			if d.File.Socket != nil {
				sockets = append(sockets, t)
			} else {
				files = append(files, t)
			}
		}
		return files, sockets, nil
	}
	filesA, socketsA, err := list(a)
	if err != nil {
		return err
	}
	filesB, socketsB, err := list(b)
	if err != nil {
		return err
	}
	c.things(Descriptors, b.Pid, filesA, filesB)
	c.things(Sockets, b.Pid, socketsA, socketsB)
	return nil
}

// sort puts the differences in the order of the sections and pids.
func (c *comparison) sort() {
	rank := map[Section]int{}
	for n, s := range Sections() {
		rank[s] = n
	}
	slices.SortStableFunc(c.diff.Differences, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(rank[a.Section], rank[b.Section]), cmp.Compare(a.Process, b.Process))
	})
}
