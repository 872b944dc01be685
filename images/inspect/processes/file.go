package processes

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"crucible/proto/imagepb"
)

// file is file_entry: one of its messages is there.
type file struct {
	Type      string     `criu:"type"`
	ID        uint32     `criu:"id"`
	Regular   *regular   `criu:"reg"`
	Inet      *inet      `criu:"isk"`
	Unix      *unixEntry `criu:"usk"`
	Netlink   *netlink   `criu:"nlsk"`
	Packet    *packet    `criu:"psk"`
	Namespace *namespace `criu:"nsf"`
	Eventfd   *eventfd   `criu:"efd"`
	Eventpoll *eventpoll `criu:"epfd"`
	Signalfd  *signalfd  `criu:"sgfd"`
	Tun       *tun       `criu:"tunf"`
	Timerfd   *timerfd   `criu:"tfd"`
	Inotify   *inotify   `criu:"ify"`
	Fanotify  *fanotify  `criu:"ffy"`
	Fifo      *fifo      `criu:"fifo"`
	Pipe      *pipe      `criu:"pipe"`
	Terminal  *terminal  `criu:"tty"`
	Memfd     *memfd     `criu:"memfd"`
	Pidfd     *pidfd     `criu:"pidfd"`
}

type owner struct {
	Signal uint32 `criu:"signum"`
	Pid    uint32 `criu:"pid"`
}

type regular struct {
	Flags    uint32 `criu:"flags"`
	Position uint64 `criu:"pos"`
	Owner    owner  `criu:"fown"`
	Name     string `criu:"name"`
	Mount    int32  `criu:"mnt_id"`
	Size     uint64 `criu:"size"`
	Mode     uint32 `criu:"mode"`
}

type namespace struct {
	Kind  uint32 `criu:"ns_cflag"`
	Flags uint32 `criu:"flags"`
}

type eventfd struct {
	Flags   uint32 `criu:"flags"`
	Owner   owner  `criu:"fown"`
	Counter uint64 `criu:"counter"`
}

type eventpoll struct {
	Flags   uint32 `criu:"flags"`
	Owner   owner  `criu:"fown"`
	Watches []struct {
		FD     uint32 `criu:"tfd"`
		Events uint32 `criu:"events"`
		Data   uint64 `criu:"data"`
	} `criu:"tfd"`
}

type signalfd struct {
	Flags uint32 `criu:"flags"`
	Owner owner  `criu:"fown"`
	Mask  uint64 `criu:"sigmask"`
}

type tun struct {
	Device string `criu:"netdev"`
}

type timerfd struct {
	Flags        uint32 `criu:"flags"`
	Owner        owner  `criu:"fown"`
	Clock        uint32 `criu:"clockid"`
	Ticks        uint64 `criu:"ticks"`
	SetFlags     uint32 `criu:"settime_flags"`
	ValueSec     uint64 `criu:"vsec"`
	ValueNsec    uint64 `criu:"vnsec"`
	IntervalSec  uint64 `criu:"isec"`
	IntervalNsec uint64 `criu:"insec"`
}

type inotify struct {
	Flags   uint32 `criu:"flags"`
	Owner   owner  `criu:"fown"`
	Watches []struct {
		Watch uint32 `criu:"wd"`
		Mask  uint32 `criu:"mask"`
		Inode uint64 `criu:"i_ino"`
	} `criu:"wd"`
}

type fanotify struct {
	Flags uint32 `criu:"flags"`
	Owner owner  `criu:"fown"`
}

type fifo struct {
	Pipe uint32 `criu:"pipe_id"`
	File uint32 `criu:"regf_id"`
}

type pipe struct {
	Pipe  uint32 `criu:"pipe_id"`
	Flags uint32 `criu:"flags"`
	Owner owner  `criu:"fown"`
}

type terminal struct {
	Flags uint32 `criu:"flags"`
	Owner owner  `criu:"fown"`
	File  uint32 `criu:"regf_id"`
}

type memfd struct {
	Flags    uint32 `criu:"flags"`
	Position uint64 `criu:"pos"`
	Owner    owner  `criu:"fown"`
	Inode    uint64 `criu:"inode_id"`
}

type pidfd struct {
	Flags uint32 `criu:"flags"`
	Owner owner  `criu:"fown"`
	Pid   int32  `criu:"nspid"`
}

type memfdInode struct {
	ID     uint64 `criu:"inode_id"`
	Name   string `criu:"name"`
	Size   uint64 `criu:"size"`
	Mode   uint32 `criu:"mode"`
	Shared uint64 `criu:"shmid"`
}

// openFiles reads all open files, those of descriptors and others.
func (r reader) openFiles(p *imagepb.Processes) error {
	all, err := load[file](r, "files.img")
	if err != nil {
		return err
	}
	inodes := map[uint64]memfdInode{}
	for _, f := range all {
		out := &imagepb.OpenFile{Id: f.ID}
		switch {
		case f.Memfd != nil && len(inodes) == 0:
			list, err := load[memfdInode](r, "memfd.img")
			if err != nil {
				return err
			}
			for _, i := range list {
				inodes[i.ID] = i
			}
			fallthrough
		case f.Memfd != nil:
			f.memfd(out, inodes[f.Memfd.Inode])
		case f.Inet != nil || f.Unix != nil || f.Netlink != nil || f.Packet != nil:
			p.Sockets = append(p.Sockets, f.socket(out))
		default:
			f.describe(out)
		}
		r.files[f.ID] = out
		p.Files = append(p.Files, out)
	}
	// A fifo and a terminal are opened by a path, which is an entry of its own.
	for _, f := range all {
		if f.Fifo != nil {
			r.files[f.ID].Path, r.files[f.ID].Flags = r.files[f.Fifo.File].GetPath(), r.files[f.Fifo.File].GetFlags()
		}
		if f.Terminal != nil {
			r.files[f.ID].Path = r.files[f.Terminal.File].GetPath()
		}
	}
	return nil
}

func (f file) memfd(out *imagepb.OpenFile, i memfdInode) {
	out.Kind, out.Flags, out.Position, out.Value = "memfd", f.Memfd.Flags, f.Memfd.Position, i.Shared
	out.Path, out.Size, out.Mode = imagepb.Text(i.Name), i.Size, i.Mode
	own(out, f.Memfd.Owner)
}

// own says who gets a signal when there is something to read.
func own(out *imagepb.OpenFile, o owner) { out.Owner, out.Signal = int32(o.Pid), o.Signal }

// describe fills in what is no socket.
func (f file) describe(out *imagepb.OpenFile) {
	set := func(kind string, flags uint32, o owner) {
		out.Kind, out.Flags = kind, flags
		own(out, o)
	}
	switch {
	case f.Regular != nil:
		set("file", f.Regular.Flags, f.Regular.Owner)
		out.Path, out.Position, out.Size, out.Mode, out.Mount = imagepb.Text(f.Regular.Name), f.Regular.Position, f.Regular.Size, f.Regular.Mode, max(f.Regular.Mount, 0)
	case f.Namespace != nil:
		set("namespace", f.Namespace.Flags, owner{})
		out.Value = uint64(f.Namespace.Kind)
	case f.Eventfd != nil:
		set("eventfd", f.Eventfd.Flags, f.Eventfd.Owner)
		out.Value = f.Eventfd.Counter
	case f.Eventpoll != nil:
		set("eventpoll", f.Eventpoll.Flags, f.Eventpoll.Owner)
		for _, w := range f.Eventpoll.Watches {
			out.Watches = append(out.Watches, &imagepb.Watch{Number: w.FD, Events: w.Events, Data: w.Data})
		}
	case f.Signalfd != nil:
		set("signalfd", f.Signalfd.Flags, f.Signalfd.Owner)
		out.Value = f.Signalfd.Mask
	case f.Tun != nil:
		set("tun", 0, owner{})
		out.Path = imagepb.Text(f.Tun.Device)
	case f.Timerfd != nil:
		t := f.Timerfd
		set("timerfd", t.Flags, t.Owner)
		out.Timer = &imagepb.PosixTimer{Clock: t.Clock, Overrun: t.Ticks, Flags: t.SetFlags, ValueNs: t.ValueSec*1e9 + t.ValueNsec, IntervalNs: t.IntervalSec*1e9 + t.IntervalNsec}
	case f.Inotify != nil:
		set("inotify", f.Inotify.Flags, f.Inotify.Owner)
		for _, w := range f.Inotify.Watches {
			out.Watches = append(out.Watches, &imagepb.Watch{Number: w.Watch, Events: w.Mask, Data: w.Inode})
		}
	case f.Fanotify != nil:
		set("fanotify", f.Fanotify.Flags, f.Fanotify.Owner)
	case f.Fifo != nil:
		set("fifo", 0, owner{})
		out.Pipe = f.Fifo.Pipe
	case f.Pipe != nil:
		set("pipe", f.Pipe.Flags, f.Pipe.Owner)
		out.Pipe = f.Pipe.Pipe
	case f.Terminal != nil:
		set("tty", f.Terminal.Flags, f.Terminal.Owner)
	case f.Pidfd != nil:
		set("pidfd", f.Pidfd.Flags, f.Pidfd.Owner)
		out.Value = uint64(f.Pidfd.Pid)
	case f.Type == "BPFMAP":
		set("bpf-map", 0, owner{})
	case f.Type == "EXT":
		set("external", 0, owner{})
	default:
		set(f.Type, 0, owner{})
	}
}

type options struct {
	SendBuffer    uint32   `criu:"so_sndbuf"`
	ReceiveBuffer uint32   `criu:"so_rcvbuf"`
	ReuseAddr     bool     `criu:"reuseaddr"`
	Mark          uint32   `criu:"so_mark"`
	PassCred      bool     `criu:"so_passcred"`
	PassSec       bool     `criu:"so_passsec"`
	DontRoute     bool     `criu:"so_dontroute"`
	NoCheck       bool     `criu:"so_no_check"`
	Device        string   `criu:"so_bound_dev"`
	Filter        []uint64 `criu:"so_filter"`
	ReusePort     bool     `criu:"so_reuseport"`
	Broadcast     bool     `criu:"so_broadcast"`
	KeepAlive     bool     `criu:"so_keepalive"`
	OOBInline     uint32   `criu:"so_oobinline"`
	Linger        uint32   `criu:"so_linger"`
}

type inet struct {
	Inode    uint64   `criu:"ino"`
	Family   uint32   `criu:"family"`
	Type     uint32   `criu:"type"`
	Protocol uint32   `criu:"proto"`
	State    uint32   `criu:"state"`
	SrcPort  uint32   `criu:"src_port"`
	DstPort  uint32   `criu:"dst_port"`
	Flags    uint32   `criu:"flags"`
	Backlog  uint32   `criu:"backlog"`
	Src      []uint32 `criu:"src_addr"`
	Dst      []uint32 `criu:"dst_addr"`
	Owner    owner    `criu:"fown"`
	Options  options  `criu:"opts"`
	V6Only   bool     `criu:"v6only"`
	Shutdown uint32   `criu:"shutdown"`
	TCP      struct {
		Cork    bool `criu:"cork"`
		NoDelay bool `criu:"nodelay"`
	} `criu:"tcp_opts"`
}

type unixEntry struct {
	Inode    uint64  `criu:"ino"`
	Type     uint32  `criu:"type"`
	State    uint32  `criu:"state"`
	Flags    uint32  `criu:"flags"`
	Backlog  uint32  `criu:"backlog"`
	Peer     uint64  `criu:"peer"`
	Owner    owner   `criu:"fown"`
	Options  options `criu:"opts"`
	Name     []byte  `criu:"name"`
	Shutdown uint32  `criu:"shutdown"`
}

type netlink struct {
	Inode    uint64  `criu:"ino"`
	Protocol uint32  `criu:"protocol"`
	State    uint32  `criu:"state"`
	Flags    uint32  `criu:"flags"`
	Port     uint32  `criu:"portid"`
	DstPort  uint32  `criu:"dst_portid"`
	Owner    owner   `criu:"fown"`
	Options  options `criu:"opts"`
}

type packet struct {
	Type     uint32  `criu:"type"`
	Protocol uint32  `criu:"protocol"`
	Flags    uint32  `criu:"flags"`
	Link     uint32  `criu:"ifindex"`
	Owner    owner   `criu:"fown"`
	Options  options `criu:"opts"`
}

// The families of sockets (linux/socket.h).
const (
	afUnix    = 1
	afNetlink = 16
	afPacket  = 17
)

// socket fills in a socket, and the open file that it is.
func (f file) socket(out *imagepb.OpenFile) *imagepb.Socket {
	s := &imagepb.Socket{File: f.ID}
	var o options
	switch {
	case f.Inet != nil:
		i := f.Inet
		out.Kind, out.Flags, o = "inet", i.Flags, i.Options
		own(out, i.Owner)
		s.Inode, s.Family, s.Type, s.Protocol, s.State, s.Backlog, s.Shutdown = i.Inode, i.Family, i.Type, i.Protocol, i.State, i.Backlog, i.Shutdown
		s.Local, s.Remote = endpoint(i.Src, i.SrcPort), endpoint(i.Dst, i.DstPort)
	case f.Unix != nil:
		u := f.Unix
		out.Kind, out.Flags, o = "unix", u.Flags, u.Options
		own(out, u.Owner)
		s.Inode, s.Family, s.Type, s.State, s.Backlog, s.Peer, s.Shutdown = u.Inode, afUnix, u.Type, u.State, u.Backlog, u.Peer, u.Shutdown
		s.Local = unixName(u.Name)
	case f.Netlink != nil:
		n := f.Netlink
		out.Kind, out.Flags, o = "netlink", n.Flags, n.Options
		own(out, n.Owner)
		s.Inode, s.Family, s.Protocol, s.State, s.Local = n.Inode, afNetlink, n.Protocol, n.State, fmt.Sprint(n.Port)
		if n.DstPort != 0 {
			s.Remote = fmt.Sprint(n.DstPort)
		}
	case f.Packet != nil:
		p := f.Packet
		out.Kind, out.Flags, o = "packet", p.Flags, p.Options
		own(out, p.Owner)
		s.Family, s.Type, s.Protocol, s.Local = afPacket, p.Type, p.Protocol, fmt.Sprint(p.Link)
	}
	s.SendBuffer, s.ReceiveBuffer, s.Mark, s.Device = o.SendBuffer, o.ReceiveBuffer, o.Mark, imagepb.Text(o.Device)
	s.Options = o.names()
	if f.Inet != nil {
		for _, more := range []option{{f.Inet.V6Only, "v6only"}, {f.Inet.TCP.Cork, "cork"}, {f.Inet.TCP.NoDelay, "nodelay"}} {
			if more.on {
				s.Options = append(s.Options, more.name)
			}
		}
	}
	return s
}

type option struct {
	on   bool
	name string
}

func (o options) names() (all []string) {
	for _, one := range []option{
		{o.ReuseAddr, "reuseaddr"}, {o.ReusePort, "reuseport"}, {o.Broadcast, "broadcast"}, {o.KeepAlive, "keepalive"}, {o.PassCred, "passcred"},
		{o.PassSec, "passsec"}, {o.DontRoute, "dontroute"}, {o.NoCheck, "no_check"}, {o.OOBInline != 0, "oobinline"}, {o.Linger != 0, "linger"}, {len(o.Filter) > 0, "filter"},
	} {
		if one.on {
			all = append(all, one.name)
		}
	}
	return all
}

// endpoint is an address as CRIU keeps it, the kernel's bytes in words of the
// machine, and a port.
func endpoint(words []uint32, port uint32) string {
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return ""
	}
	return netip.AddrPortFrom(a, uint16(port)).String()
}

// unixName is a path, or an abstract name, which begins with a NUL; a path may
// end with one.
func unixName(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if b[0] == 0 {
		return "@" + imagepb.Text(string(b[1:]))
	}
	if b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return imagepb.Text(string(b))
}
