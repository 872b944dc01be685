package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// parkedBytes bounds what a parking keeps, counted as the kernel does (a frame
// of 1500 bytes is about 2300). What does not fit is dropped, newest first, and
// counted; TCP sends it again.
const parkedBytes = 32 << 20

// A Parking keeps the frames that are sent to a container while it cannot take
// them, and delivers them afterwards: the peer sees a pause, not a loss.
//
//	           bridge
//	  ┌──────────┼───────────────┐
//	crp1a2b    cru1a2b         cru3c4d        host ends
//	  │          │               │
//	 sink       eth0            eth0
//	sink ns   old container   restored container (later)
//	  └─ AF_PACKET socket: the frames are in its receive buffer
//
// A veth joins the bridge as stand-in port; a sticky forwarding entry turns the
// container's MAC to it; the packet socket at its other end keeps what comes.
// That end lives in a namespace of its own with the container's MAC and address,
// for two reasons. The kernel there answers ARP for the container, so that the
// peers' neighbour entries outlive a long outage; it answers nothing else, for
// lack of a route to anybody. And the namespace lives as long as the socket: when
// the last process that holds it dies, stand-in port and forwarding entry vanish.
//
// The exported fields and the descriptor of Files are all there is to a
// parking: another process can go on with it (OpenParking), also one that got
// them before the Start.
type Parking struct {
	Attachment *Attachment `json:"attachment"` // whose frames
	StandIn    string      `json:"standIn"`
	Index      int         `json:"index"` // of the stand-in

	over bool     // delivered or stopped, by this process
	sock *os.File // holds the frames
	out  *os.File // sends them
	host *socket
}

// Park prepares a parking: all that takes time (2 to 3 ms, most of it for the
// namespace and the veth), and nothing that the container could notice. For
// an attachment without a bridge it returns nil, on which every method is a
// no-op.
func (a *Attachment) Park(ctx context.Context) (p *Parking, err error) {
	if a == nil || a.Mode != ModeBridge {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// The lock, because Sweep deletes a stand-in that no lease knows.
	all, err := lockLeases(ctx, a.Root)
	if err != nil {
		return nil, fmt.Errorf("park network of %s: %w", a.Name, err)
	}
	defer all.unlock()
	p = &Parking{Attachment: a}
	if err = p.prepare(); err == nil {
		err = p.inLease(all, p.StandIn)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("park network of %s: %w", a.Name, err)
	}
	return p, nil
}

// inLease writes the stand-in's name into the container's lease, which keeps
// the lease alive although the container's own link may go.
func (p *Parking) inLease(all *leases, name string) error {
	a := p.Attachment
	e, err := all.get(a.Bridge, a.Address.Addr())
	if errors.Is(err, fs.ErrNotExist) || err == nil && e.Name != a.Name {
		return nil // detached meanwhile: not ours to write
	}
	if err != nil {
		return err
	}
	if name == "" && e.StandIn != p.StandIn {
		return nil // it is parked anew
	}
	e.StandIn = name
	return all.put(e)
}

func (p *Parking) prepare() error {
	a := p.Attachment
	ns, err := NewNamespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	id, err := inode(ns)
	if err != nil {
		return err
	}
	p.StandIn = "crp" + shortHash(a.Root, a.Name, fmt.Sprint(id))
	w, err := openWires(ns)
	if err != nil {
		return err
	}
	p.host, w.host = w.host, nil
	defer w.close()
	l, found, err := p.host.link(a.Bridge)
	if err != nil || !found {
		return errors.Join(err, &BridgeNotFound{Name: a.Bridge})
	}
	err = w.inside.do(newVeth(
		vethEnd{Name: "sink", MAC: a.MAC, MTU: a.MTU, Up: true},
		vethEnd{Name: p.StandIn, MTU: a.MTU, NS: w.hostNS}))
	if err != nil {
		return fmt.Errorf("make link %s: %w", p.StandIn, err)
	}
	p.Index, err = p.host.joinBridge(p.StandIn, bridge{Name: l.Name, Index: l.Index}, portAlias(a.Root, a.Name))
	if err != nil {
		return err
	}
	// Deaf until Start. Afterwards it takes only what the entry turns to it and
	// what goes to everybody, and it teaches the bridge nothing.
	err = p.host.do(setPort(p.Index,
		nl.NewRtAttr(nl.IFLA_BRPORT_STATE, []byte{portListening}),
		nl.NewRtAttr(nl.IFLA_BRPORT_UNICAST_FLOOD, []byte{0}),
		nl.NewRtAttr(nl.IFLA_BRPORT_LEARNING, []byte{0})))
	if err != nil {
		return fmt.Errorf("prepare port %s: %w", p.StandIn, err)
	}
	return p.openSink(ns, w.inside)
}

// openSink gives the far end the container's address and the packet socket.
func (p *Parking) openSink(ns *os.File, inside *socket) error {
	l, found, err := inside.link("sink")
	if err != nil || !found {
		return errors.Join(errors.New("the sink is gone"), err)
	}
	if err := awaitUp(ns, inside, "sink"); err != nil {
		return err
	}
	// /32: a local route and no other, so the kernel here can answer ARP but has
	// no way to send a reset or an ICMP error.
	addr := netip.PrefixFrom(p.Attachment.Address.Addr(), 32)
	if err := inside.do(newAddress(l.Index, addr, create)); err != nil {
		return fmt.Errorf("set address of the sink: %w", err)
	}
	return Do(ns, func() error {
		// A strict reverse path filter drops ARP requests too: there is no route
		// back. The value in effect is the maximum of the two.
		for _, name := range []string{"all", "sink"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0); err != nil {
				return err
			}
		}
		sock, err := packetSocket(l.Index, unix.ETH_P_ALL, keepFilter(addr.Addr()))
		p.sock = sock
		return err
	})
}

// packetSocket opens an AF_PACKET socket on a link of the calling thread's
// namespace. Protocol 0 receives nothing.
//
// PACKET_VNET_HDR: a veth carries frames whose checksum is still to be computed
// and segments of up to 64 KiB. The header in front of each frame says so, and
// makes the same of it on the other side.
func packetSocket(index int, protocol uint16, filter []unix.SockFilter) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "packet socket")
	set := func(level, opt, value int) {
		if err == nil {
			if err = unix.SetsockoptInt(fd, level, opt, value); err != nil {
				err = fmt.Errorf("set packet socket option %d: %w", opt, err)
			}
		}
	}
	set(unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	if protocol != 0 {
		set(unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)     // the ARP answers given here
		set(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, parkedBytes/2) // the kernel doubles it
		if err == nil {
			prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
			err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
		}
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: index})
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("prepare packet socket: %w", err)
	}
	return f, nil
}

// keepFilter keeps everything except broadcast ARP that is not about us.
func keepFilter(a netip.Addr) []unix.SockFilter {
	ip := a.As4()
	const (
		ldh  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		ldb  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		ldw  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jset = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		{Code: ldh, K: 12},                           // Ethernet type
		{Code: jeq, K: unix.ETH_P_ARP, Jt: 0, Jf: 4}, // not ARP: keep
		{Code: ldb, K: 0},                            // destination
		{Code: jset, K: 1, Jt: 0, Jf: 2},             // not to a group: keep
		{Code: ldw, K: 14 + 24},                      // ARP target address
		{Code: jeq, K: be32(ip), Jt: 0, Jf: 1},       // not ours: drop
		{Code: ret, K: 1 << 30},                      // keep all of it
		{Code: ret, K: 0},                            // drop
	}
}

func be32(b [4]byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Start turns the container's frames to the stand-in and mutes its host end,
// by one system call of about 50 us. It belongs right after the freeze: what a
// running process sends from a muted container is lost until TCP's next try.
func (p *Parking) Start(ctx context.Context) error {
	if p == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	a := p.Attachment
	err := p.host.do(
		setPortState(p.Index, portForwarding),
		fdbEntry(p.Index, a.MAC, true),
		setPortState(a.HostIndex, portListening))
	if err != nil {
		return fmt.Errorf("park frames for %s: %w", a.Name, err)
	}
	return nil
}

// Files are the descriptors that another process needs besides the JSON.
func (p *Parking) Files() []*os.File {
	if p == nil {
		return nil
	}
	return []*os.File{p.sock}
}

// OpenParking goes on with a parking that another process prepared. It takes
// over the files.
func OpenParking(files []*os.File, data []byte) (*Parking, error) {
	p := &Parking{}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("open parking: %w", err)
	}
	if len(files) != 1 || p.Attachment == nil {
		return nil, errors.New("open parking: want one descriptor and an attachment")
	}
	var err error
	if p.host, err = dial(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open parking: %w", err)
	}
	p.sock = files[0]
	return p, nil
}

// Close lets go of this process's hold on the parking. The last one's takes the
// stand-in away, a few milliseconds later.
//
// The kernel waits for an RCU grace period whenever a packet socket is closed
// (net/packet/af_packet.c, packet_release): 10 ms, or 60 on a busy machine. It
// is not part of what the container's peers feel; do it where nobody waits. A
// process that exits instead waits as long.
func (p *Parking) Close() {
	if p == nil {
		return
	}
	var wg sync.WaitGroup
	for _, f := range []*os.File{p.sock, p.out} {
		if f != nil {
			wg.Go(func() { f.Close() }) // together: one grace period serves both
		}
	}
	if p.host != nil {
		p.host.Close()
	}
	wg.Wait()
	p.sock, p.out, p.host = nil, nil, nil
}
