package inspect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fileEntry is an entry of files.img: one of the others is set.
type fileEntry struct {
	Type     string         `criu:"type"`
	ID       uint32         `criu:"id"`
	Regular  *regEntry      `criu:"reg"`
	Inet     *inetEntry     `criu:"isk"`
	NS       *nsEntry       `criu:"nsf"`
	Packet   *packetEntry   `criu:"psk"`
	Netlink  *netlinkEntry  `criu:"nlsk"`
	Event    *eventEntry    `criu:"efd"`
	Epoll    *epollEntry    `criu:"epfd"`
	Signal   *signalEntry   `criu:"sgfd"`
	Tun      *tunEntry      `criu:"tunf"`
	Timer    *timerEntry    `criu:"tfd"`
	Inotify  *inotifyEntry  `criu:"ify"`
	Fanotify *fanotifyEntry `criu:"ffy"`
	Unix     *unixEntry     `criu:"usk"`
	Fifo     *fifoEntry     `criu:"fifo"`
	Pipe     *pipeEntry     `criu:"pipe"`
	TTY      *ttyEntry      `criu:"tty"`
	Memfd    *memfdEntry    `criu:"memfd"`
	Pidfd    *pidfdEntry    `criu:"pidfd"`
}

type (
	regEntry struct {
		Flags uint32 `criu:"flags"`
		Pos   uint64 `criu:"pos"`
		Name  string `criu:"name"`
		Size  uint64 `criu:"size"`
		Mode  uint32 `criu:"mode"`
	}
	nsEntry struct {
		Flags uint32 `criu:"flags"`
		Kind  uint32 `criu:"ns_cflag"`
	}
	eventEntry struct {
		Flags   uint32 `criu:"flags"`
		Counter uint64 `criu:"counter"`
	}
	epollEntry struct {
		Flags   uint32 `criu:"flags"`
		Targets []struct {
			FD     int    `criu:"tfd"`
			Events uint32 `criu:"events"`
			Data   uint64 `criu:"data"`
		} `criu:"tfd"`
	}
	signalEntry struct {
		Flags uint32 `criu:"flags"`
		Mask  uint64 `criu:"sigmask"`
	}
	tunEntry struct {
		Device string `criu:"netdev"`
	}
	timerEntry struct {
		Flags uint32 `criu:"flags"`
		Clock uint32 `criu:"clockid"`
		Ticks uint64 `criu:"ticks"`
		VSec  uint64 `criu:"vsec"`
		VNSec uint64 `criu:"vnsec"`
		ISec  uint64 `criu:"isec"`
		INSec uint64 `criu:"insec"`
	}
	handleEntry struct {
		Path string `criu:"path"`
	}
	inotifyEntry struct {
		Flags   uint32 `criu:"flags"`
		Watches []struct {
			Inode  uint64      `criu:"i_ino"`
			Mask   uint32      `criu:"mask"`
			Handle handleEntry `criu:"f_handle"`
		} `criu:"wd"`
	}
	fanotifyEntry struct {
		Flags uint32 `criu:"flags"`
		Marks []struct {
			Mask  uint32 `criu:"mask"`
			Inode struct {
				Inode  uint64      `criu:"i_ino"`
				Handle handleEntry `criu:"f_handle"`
			} `criu:"ie"`
			Mount struct {
				Path string `criu:"path"`
			} `criu:"me"`
		} `criu:"mark"`
	}
	fifoEntry struct {
		PipeID  uint32 `criu:"pipe_id"`
		Regular uint32 `criu:"regf_id"`
	}
	pipeEntry struct {
		PipeID uint32 `criu:"pipe_id"`
		Flags  uint32 `criu:"flags"`
	}
	ttyEntry struct {
		Info    uint32 `criu:"tty_info_id"`
		Flags   uint32 `criu:"flags"`
		Regular uint32 `criu:"regf_id"`
	}
	memfdEntry struct {
		Flags uint32 `criu:"flags"`
		Pos   uint64 `criu:"pos"`
		Inode uint64 `criu:"inode_id"`
	}
	pidfdEntry struct {
		Flags uint32 `criu:"flags"`
		Pid   int    `criu:"nspid"`
	}
)

// files reads what is open, without who has it open.
func (r *reader) files() ([]*File, error) {
	entries, err := load[fileEntry](r, "files.img")
	if err != nil {
		return nil, err
	}
	t, err := r.fileTables()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Regular != nil {
			t.regular[e.ID] = e.Regular
		}
	}
	var all []*File
	for _, e := range entries {
		f := &File{ID: e.ID, Kind: kindName(e.Type), Deleted: t.deleted[e.ID]}
		t.describe(f, &e)
		all = append(all, f)
	}
	slices.SortStableFunc(all, func(a, b *File) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// fileTables are what CRIU keeps of files elsewhere.
type fileTables struct {
	regular map[uint32]*regEntry
	deleted map[uint32]bool   // by the file's id
	pipes   map[uint32]uint64 // bytes in them, by the pipe's id
	queues  map[uint32]uint64 // bytes that a socket has not read, by the file's id
	memfds  map[uint64]memfdInode
	ttys    map[uint32]ttyInfo
	ttyData map[uint32]uint64
	reader  *reader
}

type memfdInode struct {
	Name    string `criu:"name"`
	Size    uint64 `criu:"size"`
	InodeID uint64 `criu:"inode_id"`
}

type ttyInfo struct {
	ID   uint32 `criu:"id"`
	Type string `criu:"type"`
	Sid  int    `criu:"sid"`
	Pgrp int    `criu:"pgrp"`
	Size struct {
		Rows    uint32 `criu:"ws_row"`
		Columns uint32 `criu:"ws_col"`
	} `criu:"winsize"`
	Pty struct {
		Index uint32 `criu:"index"`
	} `criu:"pty"`
}

func (r *reader) fileTables() (*fileTables, error) {
	t := &fileTables{map[uint32]*regEntry{}, map[uint32]bool{}, map[uint32]uint64{}, map[uint32]uint64{},
		map[uint64]memfdInode{}, map[uint32]ttyInfo{}, map[uint32]uint64{}, r}
	remaps, err := loadMaybe[struct {
		Of   uint32 `criu:"orig_id"`
		Type string `criu:"remap_type"`
	}](r, "remap-fpath.img")
	if err != nil {
		return nil, err
	}
	for _, e := range remaps {
		t.deleted[e.Of] = e.Type != "PROCFS"
	}
	for _, name := range []string{"pipes-data.img", "fifo-data.img"} {
		data, err := loadMaybe[struct {
			Pipe  uint32 `criu:"pipe_id"`
			Bytes uint64 `criu:"bytes"`
		}](r, "%s", name)
		if err != nil {
			return nil, err
		}
		for _, e := range data {
			t.pipes[e.Pipe] += e.Bytes
		}
	}
	queues, err := loadMaybe[struct {
		For    uint32 `criu:"id_for"`
		Length uint64 `criu:"length"`
	}](r, "sk-queues.img")
	if err != nil {
		return nil, err
	}
	for _, e := range queues {
		t.queues[e.For] += e.Length
	}
	memfds, err := loadMaybe[memfdInode](r, "memfd.img")
	if err != nil {
		return nil, err
	}
	for _, e := range memfds {
		t.memfds[e.InodeID] = e
	}
	return t, t.readTTYs()
}

func (t *fileTables) readTTYs() error {
	infos, err := loadMaybe[ttyInfo](t.reader, "tty-info.img")
	if err != nil {
		return err
	}
	for _, e := range infos {
		t.ttys[e.ID] = e
	}
	data, err := loadMaybe[struct {
		ID   uint32 `criu:"tty_id"`
		Data []byte `criu:"data"`
	}](t.reader, "tty-data.img")
	for _, e := range data {
		t.ttyData[e.ID] += uint64(len(e.Data))
	}
	return err
}

// describe fills in a file from what CRIU says of it.
func (t *fileTables) describe(f *File, e *fileEntry) {
	switch {
	case e.Regular != nil:
		f.regular(e.Regular)
	case e.Fifo != nil:
		t.path(f, e.Fifo.Regular)
		f.Kind = "fifo"
		f.Pipe = &Pipe{ID: e.Fifo.PipeID, Waiting: t.pipes[e.Fifo.PipeID]}
	case e.Pipe != nil:
		f.opened(e.Pipe.Flags)
		f.Pipe = &Pipe{ID: e.Pipe.PipeID, Waiting: t.pipes[e.Pipe.PipeID]}
	case e.Event != nil:
		f.opened(e.Event.Flags)
		f.Counter = &e.Event.Counter
	case e.Epoll != nil:
		f.opened(e.Epoll.Flags)
		for _, target := range e.Epoll.Targets {
			f.Epoll = append(f.Epoll, Target{FD: target.FD, Events: epollEvents(target.Events), Data: target.Data})
		}
	case e.Signal != nil:
		f.opened(e.Signal.Flags)
		f.Signals = signalSet(e.Signal.Mask)
	case e.Timer != nil:
		f.opened(e.Timer.Flags)
		f.Timer = e.Timer.timer()
	case e.Inotify != nil:
		f.opened(e.Inotify.Flags)
		for _, w := range e.Inotify.Watches {
			f.Watches = append(f.Watches, Watch{w.Handle.Path, w.Inode, inotifyEvents(w.Mask)})
		}
	case e.Fanotify != nil:
		f.opened(e.Fanotify.Flags)
		for _, m := range e.Fanotify.Marks {
			f.Watches = append(f.Watches, Watch{cmp.Or(m.Mount.Path, m.Inode.Handle.Path), m.Inode.Inode, fanotifyEvents(m.Mask)})
		}
	case e.TTY != nil:
		t.path(f, e.TTY.Regular)
		f.Kind = "terminal"
		f.Terminal = t.terminal(e.TTY.Info)
	default:
		t.describeOther(f, e)
	}
}

func (t *fileTables) describeOther(f *File, e *fileEntry) {
	switch {
	case e.Memfd != nil:
		f.opened(e.Memfd.Flags)
		inode := t.memfds[e.Memfd.Inode]
		f.Path, f.Size, f.Position = inode.Name, inode.Size, e.Memfd.Pos
	case e.Pidfd != nil:
		f.opened(e.Pidfd.Flags)
		f.Of = fmt.Sprintf("pid %d", e.Pidfd.Pid)
	case e.NS != nil:
		f.opened(e.NS.Flags)
		f.Of = namespaceName(e.NS.Kind)
	case e.Tun != nil:
		f.Path = e.Tun.Device
	case e.Unix != nil:
		f.opened(e.Unix.Flags)
		f.Socket, f.Deleted = e.Unix.socket(), e.Unix.Deleted
	case e.Inet != nil:
		f.opened(e.Inet.Flags)
		f.Socket = e.Inet.socket()
	case e.Netlink != nil:
		f.opened(e.Netlink.Flags)
		f.Socket = e.Netlink.socket()
	case e.Packet != nil:
		f.opened(e.Packet.Flags)
		f.Socket = e.Packet.socket()
	}
	if f.Socket != nil {
		f.Socket.Received = t.queues[f.ID]
	}
}

func (f *File) opened(flags uint32) { f.Access, f.Flags = access(flags), openFlags(flags) }

func (f *File) regular(e *regEntry) {
	f.opened(e.Flags)
	f.Path, f.Position, f.Size = e.Name, e.Pos, e.Size
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		f.Kind = "directory"
	case unix.S_IFCHR, unix.S_IFBLK:
		f.Kind = "device"
	case unix.S_IFIFO:
		f.Kind = "fifo"
	}
}

// path fills in what the regular file says by which a fifo or terminal was opened.
func (t *fileTables) path(f *File, regular uint32) {
	if e := t.regular[regular]; e != nil {
		f.regular(e)
		f.Deleted = t.deleted[regular]
	}
}

func (e *timerEntry) timer() *Timer {
	return &Timer{Clock: clockName(e.Clock), Expired: e.Ticks, Next: duration(e.VSec, e.VNSec), Interval: duration(e.ISec, e.INSec)}
}

// duration of seconds and nanoseconds; the longest that there is for more.
func duration(sec, nsec uint64) time.Duration {
	const longest = uint64(1<<63-1) / 1e9
	if sec >= longest || nsec >= 1e9 {
		return 1<<63 - 1
	}
	return time.Duration(sec*1e9 + nsec)
}

func (t *fileTables) terminal(id uint32) *TTY {
	info, known := t.ttys[id]
	if !known {
		return &TTY{Kind: "unknown"}
	}
	return &TTY{Kind: strings.ToLower(info.Type), Index: info.Pty.Index, Session: info.Sid, Group: info.Pgrp,
		Rows: info.Size.Rows, Columns: info.Size.Columns, Waiting: t.ttyData[id]}
}
