package network

import (
	"fmt"
	"net/netip"
)

// The errors on which a caller branches, or that have a way out: Hint tells it.

// AddressInUse: another container has the address.
type AddressInUse struct {
	Address netip.Addr
	By      string // a container
}

func (e *AddressInUse) Error() string {
	return fmt.Sprintf("address %s: already used by container %s", e.Address, e.By)
}

func (e *AddressInUse) Hint() string {
	return "choose another with --ip, or leave --ip out to get a free one"
}

// NoFreeAddress: a container lives at every address of the subnet.
type NoFreeAddress struct {
	Subnet netip.Prefix
}

func (e *NoFreeAddress) Error() string {
	return fmt.Sprintf("address: none is free in %s", e.Subnet)
}

func (e *NoFreeAddress) Hint() string {
	return "stop a container, or use another bridge: --net bridge=NAME"
}

// AddressOutside: the address does not belong to the bridge's subnet.
type AddressOutside struct {
	Address netip.Addr
	Bridge  string
	Subnet  netip.Prefix
}

func (e *AddressOutside) Error() string {
	return fmt.Sprintf("address %s: not usable in %s, the subnet of bridge %s", e.Address, e.Subnet, e.Bridge)
}

func (e *AddressOutside) Hint() string {
	return "choose another address; the first container on the bridge decides on its subnet, a private one (--ip A.B.C.D/N)"
}

// AddressNeeded: on a bridge that is not ours nobody but the user knows which
// addresses are free.
type AddressNeeded struct {
	Bridge string
	Owner  string // another state root; empty: not crucible at all
}

func (e *AddressNeeded) Error() string {
	return fmt.Sprintf("bridge %s: %s, so no address can be chosen there", e.Bridge, owner(e.Owner))
}

func (e *AddressNeeded) Hint() string {
	return "give one with --ip A.B.C.D/N, or use a name that no link has yet: crucible makes that bridge"
}

// owner says whose a bridge is that is not ours.
func owner(root string) string {
	if root == "" {
		return "was not made by crucible"
	}
	return "belongs to the state root " + root
}

// PublishRefused: ports lead only to a bridge of ours, whose rules we make.
type PublishRefused struct {
	Bridge string
	Owner  string // another state root; empty: not crucible at all
}

func (e *PublishRefused) Error() string {
	return fmt.Sprintf("publish on bridge %s: the bridge %s", e.Bridge, owner(e.Owner))
}

func (e *PublishRefused) Hint() string {
	return "publish on a bridge that crucible makes: --net bridge, or --net bridge=NAME with a name that no link has yet"
}

// PortInUse: the host's port already leads elsewhere.
type PortInUse struct {
	Port Port
	By   string // "container web", "another program"
}

func (e *PortInUse) Error() string {
	return fmt.Sprintf("publish %s: the host's port is already used by %s", e.Port, e.By)
}

func (e *PortInUse) Hint() string { return "choose another port of the host" }

// BridgeNotFound: the bridge is gone, and was not made by crucible.
type BridgeNotFound struct {
	Name string
}

func (e *BridgeNotFound) Error() string {
	return fmt.Sprintf("bridge %s: not found", e.Name)
}

func (e *BridgeNotFound) Hint() string {
	return "it was not made by crucible when the container was on it: make it with `ip link add " + e.Name + " type bridge`"
}

// BridgeNotOurs: a link has the name that crucible wants for a bridge.
type BridgeNotOurs struct {
	Name  string
	Owner string // another state root; empty: not crucible at all
	Kind  string // "bridge", "dummy", ...; empty: hardware or lo
}

func (e *BridgeNotOurs) Error() string {
	switch e.Kind {
	case "bridge":
		return fmt.Sprintf("bridge %s: %s", e.Name, owner(e.Owner))
	case "":
		return fmt.Sprintf("link %s: is not a bridge", e.Name)
	}
	return fmt.Sprintf("link %s: is not a bridge, but of kind %s", e.Name, e.Kind)
}

func (e *BridgeNotOurs) Hint() string {
	return "use another name: --net bridge=NAME; crucible makes the bridge if there is none"
}

// NoSubnet: every candidate overlaps an address or a route of this host.
type NoSubnet struct {
	Overlap netip.Prefix // of the wanted subnet, if one was wanted
	Wanted  netip.Prefix
}

func (e *NoSubnet) Error() string {
	if e.Wanted.IsValid() {
		return fmt.Sprintf("subnet %s: overlaps %s, which an address or a route of this host has", e.Wanted, e.Overlap)
	}
	return "subnet: every candidate overlaps an address or a route of this host"
}

func (e *NoSubnet) Hint() string {
	return "choose one that does not, by the first container's address: --ip A.B.C.D/N"
}

// NoNAT: the kernel cannot do what the own bridge and published ports need.
type NoNAT struct {
	Err error
}

func (e *NoNAT) Error() string {
	return fmt.Sprintf("nftables: %v", e.Err)
}

func (e *NoNAT) Hint() string {
	return "load nf_tables and nft_nat, or use a bridge that you have made (--net bridge=NAME --ip A.B.C.D/N) without --publish"
}

func (e *NoNAT) Unwrap() error { return e.Err }

// UnsupportedLink: the container made a link that cannot be rebuilt.
type UnsupportedLink struct {
	Name string
	Kind string
}

func (e *UnsupportedLink) Error() string {
	return fmt.Sprintf("link %s: of kind %q, which cannot be rebuilt", e.Name, e.Kind)
}

func (e *UnsupportedLink) Hint() string { return "delete it in the container before the checkpoint" }

// IndexTaken: a fresh namespace already has a link of the wanted index.
type IndexTaken struct {
	Link  string
	Index int
	By    string
}

func (e *IndexTaken) Error() string {
	return fmt.Sprintf("link %s: its index %d is taken by %s in a fresh namespace", e.Link, e.Index, e.By)
}

func (e *IndexTaken) Hint() string {
	return "unload the tunnel module that makes that link everywhere, or set net.core.fb_tunnels_only_for_init_net=1"
}
