package inspect

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Descriptor is a descriptor of a process. Several can be of one File.
type Descriptor struct {
	FD          int   `json:"fd"`
	CloseOnExec bool  `json:"closeOnExec"`
	File        *File `json:"file"`
}

// link ties processes to their files, and files to each other.
func (r *reader) link(c *Contents) error {
	byID := map[uint32]*File{}
	for _, f := range c.Files {
		byID[f.ID] = f
	}
	for _, p := range c.Processes {
		if p.State == "zombie" {
			continue
		}
		p.Exe, p.Directory, p.Root = pathOf(byID, p.exe), pathOf(byID, p.directory), pathOf(byID, p.root)
		if err := r.descriptors(p, byID); err != nil {
			return err
		}
	}
	c.linkPipes()
	if err := r.linkSockets(c); err != nil {
		return err
	}
	c.linkEpolls()
	return nil
}

func pathOf(byID map[uint32]*File, id uint32) string {
	f := byID[id]
	switch {
	case f == nil:
		return ""
	case f.Deleted:
		return f.Path + " (deleted)"
	}
	return f.Path
}

// descriptors reads a process's table of descriptors, which it may share.
func (r *reader) descriptors(p *Process, byID map[uint32]*File) error {
	ids, err := loadOne[idsEntry](r, "ids-%d.img", p.Pid)
	if err != nil {
		return err
	}
	entries, err := loadMaybe[struct {
		ID    uint32 `criu:"id"`
		Flags uint32 `criu:"flags"`
		FD    int    `criu:"fd"`
	}](r, "fdinfo-%d.img", ids.Files)
	if err != nil {
		return err
	}
	for _, e := range entries {
		f := byID[e.ID]
		if f == nil {
			return r.damaged("files.img", fmt.Sprintf("has no file %d, which descriptor %d of process %d is of", e.ID, e.FD, p.Pid))
		}
		f.Holders = append(f.Holders, Holder{p.Pid, e.FD})
		p.Descriptors = append(p.Descriptors, Descriptor{FD: e.FD, CloseOnExec: e.Flags&unix.FD_CLOEXEC != 0, File: f})
	}
	slices.SortFunc(p.Descriptors, func(a, b Descriptor) int { return cmp.Compare(a.FD, b.FD) })
	return nil
}

// linkPipes finds who has the other ends.
func (c *Contents) linkPipes() {
	ends := map[uint32][]*File{}
	for _, f := range c.Files {
		if f.Pipe != nil {
			ends[f.Pipe.ID] = append(ends[f.Pipe.ID], f)
		}
	}
	for _, files := range ends {
		for _, f := range files {
			for _, other := range files {
				if other != f && (other.Access != f.Access || f.Access == "rw") {
					f.Pipe.Others = append(f.Pipe.Others, other.Holders...)
				}
			}
		}
	}
}

// linkSockets finds the other ends of unix sockets, and of connections in the
// container, and what is in the queues of TCP.
func (r *reader) linkSockets(c *Contents) error {
	byInode, byAddress := map[uint32]*File{}, map[string]*File{}
	ends := func(s *Socket, from, to string) string { return s.Kind() + " " + from + " " + to }
	for _, f := range c.Files {
		switch s := f.Socket; {
		case s == nil:
		case s.Family == "unix":
			byInode[s.Inode] = f
		case s.connected:
			byAddress[ends(s, s.Local, s.Remote)] = f
		}
	}
	for _, f := range c.Files {
		s := f.Socket
		if s == nil {
			continue
		}
		other := byAddress[ends(s, s.Remote, s.Local)]
		if s.Family == "unix" {
			other = byInode[s.peer]
		}
		if other != nil && other != f {
			s.Peers = other.Holders
			s.Remote = cmp.Or(s.Remote, other.Socket.Local)
		}
		if s.Protocol != "tcp" || !s.connected {
			continue
		}
		queues, err := loadMaybe[struct {
			In  uint64 `criu:"inq_len"`
			Out uint64 `criu:"outq_len"`
		}](r, "tcp-stream-%x.img", s.Inode)
		if err != nil {
			return err
		}
		for _, q := range queues {
			s.Received, s.Unsent = q.In, q.Out
		}
	}
	return nil
}

// linkEpolls says of what kind the targets are, as far as those who have the
// instance still have them under the same number.
func (c *Contents) linkEpolls() {
	kinds := map[Holder]string{}
	for _, p := range c.Processes {
		for _, d := range p.Descriptors {
			kinds[Holder{p.Pid, d.FD}] = d.File.Kind
		}
	}
	for _, f := range c.Files {
		for n := range f.Epoll {
			for _, h := range f.Holders {
				if kind := kinds[Holder{h.Pid, f.Epoll[n].FD}]; kind != "" {
					f.Epoll[n].Kind = kind
					break
				}
			}
		}
	}
}
