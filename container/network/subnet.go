package network

import (
	"fmt"
	"net/netip"
	"slices"
)

// rootPool is for a state root's own bridge: 10.77.0.0/16 to 10.87.0.0/16 (10.88
// is Podman's), then some of 172.16.0.0/12 that are rarely used, then a small
// one. That the first is almost always free is what lets a container move
// between hosts and keep its address.
func rootPool() (pool []netip.Prefix) {
	for i := byte(77); i <= 87; i++ {
		pool = append(pool, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, 0, 0}), 16))
	}
	for i := byte(28); i <= 30; i++ {
		pool = append(pool, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i, 0, 0}), 16))
	}
	return append(pool, netip.MustParsePrefix("192.168.222.0/24"))
}

// namedPool is for the bridges that are made by name: the 256 subnets of
// 10.76.0.0/16. They are not taken from 10.77.0.0/16, which would then not be
// free when the root's own bridge is made.
func namedPool() (pool []netip.Prefix) {
	for i := range 256 {
		pool = append(pool, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 76, byte(i), 0}), 24))
	}
	return pool
}

func (o Options) pool(bridge string) []netip.Prefix {
	if bridge == o.ownBridge() {
		return rootPool()
	}
	return namedPool()
}

// wantedSubnet is the one that the bridge must have, or the container could not
// have the address that it is to have.
func (o Options) wantedSubnet() netip.Prefix {
	if a := o.Config.Address; !o.Subnet.IsValid() && a.IsValid() && a.Addr().IsPrivate() && a.Bits() <= 30 {
		return a.Masked()
	}
	return o.Subnet
}

// wish is the address that the first container on a bridge is to have: a
// restored one finds its own again, whatever has become of the bridge that it
// was on. Only private addresses count, which nobody on the internet has.
func (o Options) wish() netip.Prefix {
	a := o.Config.Address
	if !a.IsValid() && o.Like != nil && !o.NewAddress {
		a = o.Like.Address
	}
	if !a.IsValid() {
		a = o.Prefer
	}
	if !a.Addr().IsPrivate() {
		return netip.Prefix{}
	}
	return a
}

// chooseSubnet takes the wanted subnet or the first of the pool that nothing of
// the host overlaps. A wish, see there, comes before all of the pool.
func chooseSubnet(want, wish netip.Prefix, pool, used []netip.Prefix) (netip.Prefix, error) {
	overlap := func(p netip.Prefix) netip.Prefix {
		for _, u := range used {
			if u.Overlaps(p) {
				return u
			}
		}
		return netip.Prefix{}
	}
	if want.IsValid() {
		if !want.Addr().Is4() || want.Bits() > 30 {
			return netip.Prefix{}, fmt.Errorf("subnet %s: want an IPv4 subnet of /30 or larger", want)
		}
		if o := overlap(want.Masked()); o.IsValid() {
			return netip.Prefix{}, &NoSubnet{Wanted: want.Masked(), Overlap: o}
		}
		return netip.PrefixFrom(want.Masked().Addr().Next(), want.Bits()), nil
	}
	if wish.IsValid() && wish.Bits() <= 30 {
		pool = append([]netip.Prefix{wish.Masked()}, pool...)
	} else if wish.IsValid() {
		i := slices.IndexFunc(pool, func(c netip.Prefix) bool { return c.Contains(wish.Addr()) })
		if i > 0 {
			pool = append([]netip.Prefix{pool[i]}, pool...)
		}
	}
	for _, c := range pool {
		if !overlap(c).IsValid() {
			return netip.PrefixFrom(c.Addr().Next(), c.Bits()), nil
		}
	}
	return netip.Prefix{}, &NoSubnet{}
}
