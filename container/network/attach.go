package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// containerIndex is the index of eth0 in every container. An index is part of
// what a process can see, so a restore asks for the same one again. A fresh
// namespace already holds lo and one link per loaded tunnel module (tunl0,
// sit0, ...: as many as ten); a number well above them is free on every host.
const containerIndex = 32

// Options say what to attach, and how. Root, Name and NS are needed.
type Options struct {
	Root   string   // the state root
	Name   string   // the container
	NS     *os.File // its network namespace; not needed for mode host
	Config Config

	// Quiet: no frame passes the host end until Activate, in either direction.
	Quiet bool

	// Like gives the link the name, index and MTU of a saved one and, unless
	// NewAddress is set, its address and MAC. Addresses and routes are left to
	// Rebuild.
	Like       *Saved
	NewAddress bool

	// Prefer is an address to have if it is free, where Config asks for none.
	Prefer netip.Prefix

	// OwnBridge and Subnet are for the bridge that crucible makes. Zero means
	// crucible0 (for another state root: a name made from it) and the first of
	// 10.77.0.0/16 and its like that overlaps nothing of the host.
	OwnBridge string
	Subnet    netip.Prefix
}

func (o Options) validate() error {
	if o.Root == "" || o.Name == "" {
		return errors.New("attach network: no state root or no container name")
	}
	if o.NS == nil && o.Config.mode() == ModeBridge {
		return errors.New("attach network: no namespace")
	}
	return o.Config.Validate()
}

// An Attachment is what Attach made. As JSON it holds all that Detach,
// Activate and Park need, in any process, also after a crash.
type Attachment struct {
	Root    string `json:"root"`
	Name    string `json:"name"`
	Mode    Mode   `json:"mode"`
	Bridge  string `json:"bridge,omitempty"`
	Own     bool   `json:"own,omitempty"`   // the bridge is crucible's
	Named   bool   `json:"named,omitempty"` // and was asked for by its name
	Publish []Port `json:"publish,omitempty"`

	HostLink  string `json:"hostLink,omitempty"` // on the host, a port of the bridge
	HostIndex int    `json:"hostIndex,omitempty"`

	Link       string       `json:"link,omitempty"` // in the container
	Index      int          `json:"index,omitempty"`
	MTU        int          `json:"mtu,omitempty"`
	MAC        MAC          `json:"mac,omitzero"`
	Address    netip.Prefix `json:"address,omitzero"`
	Gateway    netip.Addr   `json:"gateway,omitzero"`
	GatewayMAC MAC          `json:"gatewayMAC,omitzero"`

	// Changed says what was changed on the host for this container's sake.
	Changed []string `json:"changed,omitempty"`
}

// Attach gives the namespace its eth0. It takes 0.7 ms at best and 1.5 to 2 on
// a busy machine (Linux 6.18, two shared cores); of the 0.7 the kernel needs 0.28
// to make the veth and 0.16 to make it a port. The first container of a host
// pays 2 ms more for bridge and nftables.
//
// The order matters. The container's end gets its address only when the port
// is quiet: before that no packet is for us, so nothing can answer.
func Attach(ctx context.Context, o Options) (a *Attachment, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	a = &Attachment{Root: o.Root, Name: o.Name, Mode: o.Config.mode(), Publish: o.Config.Publish}
	if a.Mode != ModeBridge {
		return a, nil
	}
	w, err := openWires(o.NS)
	if err != nil {
		return nil, fmt.Errorf("attach network of %s: %w", o.Name, err)
	}
	defer w.close()
	all, err := lockLeases(ctx, o.Root)
	if err != nil {
		return nil, fmt.Errorf("attach network of %s: %w", o.Name, err)
	}
	defer all.unlock()
	if err := a.attach(o, w, all); err != nil {
		return nil, fmt.Errorf("attach network of %s: %w", o.Name, err)
	}
	return a, nil
}

func (a *Attachment) attach(o Options, w wires, all *leases) (err error) {
	h := w.host
	id, err := inode(o.NS)
	if err != nil {
		return err
	}
	// Of the name and of the namespace: a restored container meets its
	// predecessor's link while the kernel still takes that one down.
	hash := shortHash(o.Root, o.Name, strconv.FormatUint(id, 10))
	a.HostLink, a.Link, a.Index = "cru"+hash, "eth0", containerIndex

	b, err := findBridge(h, o)
	if err != nil {
		return err
	}
	a.Bridge, a.Own, a.Changed, a.MTU, a.GatewayMAC = b.Name, b.Own, b.Changed, b.MTU, b.MAC
	a.Named = b.Own && b.Name != o.ownBridge()
	if err := a.lease(o, b, h, all); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, all.remove(lease{Bridge: a.Bridge, Address: a.Address.Addr()}))
		}
	}()
	if err := a.makeLink(o, w, b); err != nil {
		if e := h.do(deleteLink(a.HostLink)); e != nil && !errors.Is(e, unix.ENODEV) {
			err = errors.Join(err, e)
		}
		return err
	}
	if len(a.Publish) == 0 {
		return nil
	}
	// A container that calls itself by the host's port: where bridged frames
	// pass the packet filter (bridge-nf-call-iptables), the DNAT happens inside
	// the bridge, and the frame must leave by the port it came in.
	err = h.do(setPort(a.HostIndex, nl.NewRtAttr(nl.IFLA_BRPORT_MODE, []byte{1})))
	if err == nil {
		err = publishAll(h, all, a.Bridge)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("publish ports: %w", err), h.do(deleteLink(a.HostLink)))
	}
	return nil
}

// lease settles address, MAC and gateway, and writes them down.
func (a *Attachment) lease(o Options, b bridge, h *socket, all *leases) error {
	want, mac := o.Config.Address, o.Config.MAC
	if o.Like != nil {
		l := o.Like.attached()
		if l == nil {
			return errors.New("the saved namespace has no link to attach")
		}
		a.Link, a.Index, a.MTU = l.Name, l.Index, l.MTU
		if !o.NewAddress && !want.IsValid() {
			want = o.Like.Address
		}
		if !o.NewAddress && mac.IsZero() && want == o.Like.Address {
			mac = l.MAC
		}
	}
	e := lease{Name: a.Name, Link: a.HostLink, Bridge: b.Name, Publish: a.Publish}
	alive := func(e lease) bool { return e.alive(h) }
	if len(a.Publish) > 0 {
		if !b.Own {
			return &PublishRefused{Bridge: b.Name, Owner: b.Owner}
		}
		if err := portsFree(a.Name, a.Publish, all, alive); err != nil {
			return err
		}
	}
	bits := b.Gateway.Bits()
	switch {
	case !want.IsValid() && !b.Own:
		return &AddressNeeded{Bridge: b.Name, Owner: b.Owner}
	case !want.IsValid():
		var err error
		if e, err = o.freeAddress(e, b, all, alive); err != nil {
			return err
		}
	default:
		if b.Own {
			if usable(want.Addr(), b.Gateway) != nil {
				return &AddressOutside{Address: want.Addr(), Bridge: b.Name, Subnet: b.Gateway.Masked()}
			}
		} else if want.Bits() != 32 || !b.Gateway.Contains(want.Addr()) {
			bits = want.Bits()
		}
		e.Address = want.Addr()
		if err := all.take(e, alive); err != nil {
			return err
		}
	}
	a.Address = netip.PrefixFrom(e.Address, bits)
	if a.MAC = mac; mac.IsZero() {
		a.MAC = macFor(e.Address)
	}
	if a.Gateway = o.Config.Gateway; !a.Gateway.IsValid() && a.Address.Contains(b.Gateway.Addr()) {
		a.Gateway = b.Gateway.Addr()
	}
	if !a.Gateway.IsValid() || a.Gateway != b.Gateway.Addr() {
		a.GatewayMAC = MAC{}
	}
	return nil
}

// freeAddress takes the preferred address, or any.
func (o Options) freeAddress(e lease, b bridge, all *leases, alive func(lease) bool) (lease, error) {
	if a := o.Prefer.Addr(); usable(a, b.Gateway) == nil {
		e.Address = a
		var used *AddressInUse
		if err := all.take(e, alive); !errors.As(err, &used) {
			return e, err
		}
	}
	return all.choose(e, b.Gateway, alive)
}

// address gives eth0 its address, its default route, and the gateway's MAC. The
// last saves the first packet an ARP round; to a restored container it saves a
// second, the pause after which an ARP request is repeated that went out while
// the host end was still quiet.
func (a *Attachment) address(c *socket) error {
	reqs, what := []*nl.NetlinkRequest{newAddress(a.Index, a.Address, create)}, "set address "+a.Address.String()
	if a.Gateway.IsValid() {
		reqs, what = append(reqs, defaultRoute(a.Index, a.Gateway)), what+" and default route by "+a.Gateway.String()
	}
	if !a.GatewayMAC.IsZero() {
		reqs = append(reqs, newNeighbour(a.Index, a.Gateway, a.GatewayMAC))
	}
	if err := c.do(reqs...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (e lease) alive(h *socket) bool {
	return h.linkExists(e.Link) || h.linkExists(e.StandIn)
}
