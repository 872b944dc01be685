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

func (e *NoFreeAddress) Hint() string { return "stop a container, or use a bridge of your own" }

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
	return "choose another address; the first container on the bridge decides on its subnet (--ip A.B.C.D/N)"
}

// AddressNeeded: on a bridge that is not ours nobody but the user knows which
// addresses are free.
type AddressNeeded struct {
	Bridge string
}

func (e *AddressNeeded) Error() string {
	return fmt.Sprintf("bridge %s: not made by crucible, so it cannot choose an address there", e.Bridge)
}

func (e *AddressNeeded) Hint() string { return "give one with --ip A.B.C.D/N" }

// PortInUse: the host's port already leads elsewhere.
type PortInUse struct {
	Port Port
	By   string // "container web", "another program"
}

func (e *PortInUse) Error() string {
	return fmt.Sprintf("publish %s: the host's port is already used by %s", e.Port, e.By)
}

func (e *PortInUse) Hint() string { return "choose another port of the host" }

// BridgeNotFound: --net bridge=NAME names a bridge that is not there.
type BridgeNotFound struct {
	Name string
}

func (e *BridgeNotFound) Error() string {
	return fmt.Sprintf("bridge %s: not found", e.Name)
}

func (e *BridgeNotFound) Hint() string {
	return "make it with `ip link add " + e.Name + " type bridge`, or leave the name out to use crucible's own"
}

// BridgeNotOurs: a link has the name that crucible wants for its own bridge.
type BridgeNotOurs struct {
	Name  string
	Owner string // another state root; empty: not crucible at all
	Kind  string // "bridge", "dummy", ...
}

func (e *BridgeNotOurs) Error() string {
	who := "was not made by crucible"
	if e.Owner != "" {
		who = "belongs to the state root " + e.Owner
	}
	if e.Kind != "bridge" {
		return fmt.Sprintf("link %s: is no bridge but %q", e.Name, e.Kind)
	}
	return fmt.Sprintf("bridge %s: %s", e.Name, who)
}

func (e *BridgeNotOurs) Hint() string {
	if e.Kind != "bridge" {
		return "remove the link, or use another bridge: --net bridge=NAME --ip A.B.C.D/N"
	}
	return "remove it, or use it as it is: --net bridge=" + e.Name + " --ip A.B.C.D/N"
}

// NoSubnet: every candidate overlaps a route of this host.
type NoSubnet struct {
	Overlap netip.Prefix // of the wanted subnet, if one was wanted
	Wanted  netip.Prefix
}

func (e *NoSubnet) Error() string {
	if e.Wanted.IsValid() {
		return fmt.Sprintf("subnet %s: overlaps the route to %s", e.Wanted, e.Overlap)
	}
	return "subnet: every candidate overlaps a route of this host"
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
	return "load nf_tables and nft_nat, or use a bridge of your own (--net bridge=NAME --ip A.B.C.D/N) without --publish"
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
