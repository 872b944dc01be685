package core

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"crucible/images"
	"crucible/images/inspect/criufile"
	"crucible/images/inspect/memory"
	"crucible/proto/imagepb"
)

// Process is what goes into a core file.
type Process struct {
	Pid, Ppid, Pgid, Sid int
	UID, GID             uint32
	// Name is that of /proc/PID/comm, Args the command line.
	Name, Args string
	Nice       int
	// Auxv is /proc/PID/auxv: pairs of type and value.
	Auxv []uint64
	// Threads, the first of the process first.
	Threads []Thread

	machine machine
	space   *memory.AddressSpace
	pages   uint64 // bytes of one
}

// Thread is one of them.
type Thread struct {
	ID int
	// Blocked has a bit for each signal that is blocked.
	Blocked uint64
	// Registers in the order of the kernel's struct user_regs_struct.
	Registers []uint64
	notes     []note
}

type pstreeEntry struct {
	Pid     int   `criu:"pid"`
	Ppid    int   `criu:"ppid"`
	Pgid    int   `criu:"pgid"`
	Sid     int   `criu:"sid"`
	Threads []int `criu:"threads"`
}

type coreEntry struct {
	Machine string         `criu:"mtype"`
	X86     *x86Thread     `criu:"thread_info"`
	ARM64   *aarch64Thread `criu:"ti_aarch64"`
	Task    *struct {
		Name string `criu:"comm"`
	} `criu:"tc"`
	Thread *struct {
		Blocked uint64 `criu:"blk_sigset"`
		Nice    int    `criu:"sched_nice"`
		Creds   *struct {
			UID uint32 `criu:"uid"`
			GID uint32 `criu:"gid"`
		} `criu:"creds"`
	} `criu:"thread_core"`
}

type mmEntry struct {
	Auxv []uint64 `criu:"mm_saved_auxv"`
}

// UnsupportedError is a process that this package cannot make a core file of.
type UnsupportedError struct{ Text string }

func (e *UnsupportedError) Error() string { return "core file: " + e.Text }

// Hint says what to do about it.
func (e *UnsupportedError) Hint() string {
	return "`crucible image memory` and `crucible image decode` show what is in the image, also of this process"
}

// Load reads what an image says of a process. One that is not there is an
// *images.Error of kind NotFound, and an image of a pre-dump, which has no
// registers, one of kind PreDump.
func Load(m *memory.Memory, pid int) (*Process, error) {
	space, err := m.AddressSpace(pid)
	if err != nil {
		return nil, err
	}
	if _, err := m.Mappings(pid); err != nil {
		return nil, err
	}
	l := loader{m.Image(0)}
	p := &Process{Pid: pid, space: space, pages: m.PageSize()}
	if err := l.tree(p); err != nil {
		return nil, err
	}
	mm, err := load[mmEntry](l, "mm-"+strconv.Itoa(pid)+".img")
	if err != nil {
		return nil, err
	}
	p.Auxv = mm[0].Auxv
	for n := range p.Threads {
		if err := l.thread(p, &p.Threads[n], n == 0); err != nil {
			return nil, err
		}
	}
	p.Args = p.Name
	var all imagepb.Processes
	if err := l.image.Get(images.Processes, &all); err == nil { // only for people
		for _, o := range all.Processes {
			if int(o.Pid) == pid && len(o.Args) > 0 {
				p.Args = strings.Join(o.Args, " ")
			}
		}
	}
	return p, nil
}

type loader struct{ image *images.Image }

func (l loader) damaged(file, text string) error {
	return &images.Error{Kind: images.Damaged, Ref: l.image.Ref(), File: path.Join(images.CRIU, file), Text: text,
		Advice: "`crucible image verify " + l.image.Ref() + "` tells whether it is as it was written"}
}

// load reads a file of at least one entry.
func load[T any](l loader, file string) ([]T, error) {
	all, err := criufile.Load[T](filepath.Join(l.image.CRIUDir(), file))
	var bad *criufile.Error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, l.damaged(file, "is missing")
	case errors.As(err, &bad):
		return nil, l.damaged(file, "cannot be read: "+bad.Text)
	case err != nil:
		return nil, fmt.Errorf("image %s: %w", l.image.Ref(), err)
	case len(all) == 0:
		return nil, l.damaged(file, "is empty")
	}
	return all, nil
}

// tree finds the process among all.
func (l loader) tree(p *Process) error {
	all, err := load[pstreeEntry](l, "pstree.img")
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Pid != p.Pid {
			continue
		}
		p.Ppid, p.Pgid, p.Sid = e.Ppid, e.Pgid, e.Sid
		p.Threads = append(p.Threads, Thread{ID: e.Pid})
		for _, id := range e.Threads {
			if id != e.Pid {
				p.Threads = append(p.Threads, Thread{ID: id})
			}
		}
		return nil
	}
	return l.damaged("pstree.img", fmt.Sprintf("has no process %d", p.Pid))
}

// thread reads the registers of one.
func (l loader) thread(p *Process, t *Thread, leader bool) error {
	file := "core-" + strconv.Itoa(t.ID) + ".img"
	all, err := load[coreEntry](l, file)
	if err != nil {
		return err
	}
	e := all[0]
	var is machine
	switch e.Machine {
	case "X86_64":
		is = x86
		if e.X86 == nil {
			return l.damaged(file, "has no registers")
		}
		if e.X86.Registers.Mode == "COMPAT" {
			return &UnsupportedError{fmt.Sprintf("process %d is one of 32 bits", p.Pid)}
		}
		e.X86.fill(t)
	case "AARCH64":
		is = arm64
		if e.ARM64 == nil || len(e.ARM64.Registers.X) != 31 {
			return l.damaged(file, "has no registers")
		}
		e.ARM64.fill(t)
	default:
		return &UnsupportedError{"the image was written on " + strings.ToLower(e.Machine) + ", and only x86-64 and arm64 are supported"}
	}
	if e.Thread != nil {
		t.Blocked = e.Thread.Blocked
	}
	if leader {
		p.machine = is
		if e.Task != nil {
			p.Name = e.Task.Name
		}
		if e.Thread != nil {
			p.Nice = e.Thread.Nice
			if c := e.Thread.Creds; c != nil {
				p.UID, p.GID = c.UID, c.GID
			}
		}
	} else if is != p.machine {
		return l.damaged(file, "is of another kind of machine than the process")
	}
	return nil
}
