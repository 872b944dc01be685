package network

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	defaultRoot   = "/var/lib/crucible"
	defaultBridge = "crucible0"
	aliasMark     = "crucible "
	forwardFile   = "/proc/sys/net/ipv4/ip_forward"
)

// A bridge as the kernel has it. The kernel is the record: subnet, owner and
// what ip_forward was before are in the link's alias, so they live exactly as
// long as the bridge, through crashes and reboots.
type bridge struct {
	Name    string
	Index   int
	Gateway netip.Prefix // its own address in the subnet
	MAC     MAC
	MTU     int
	Idle    bool     // without a carrier: no port of it forwards yet
	Own     bool     // made by crucible for this root
	Changed []string // what was changed on the host to make it
}

// alias is what the link's alias says about our bridge.
type alias struct {
	Gateway   netip.Prefix
	ForwardBy bool // we turned ip_forward on: it was 0
	Root      string
}

func (a alias) String() string {
	was := "1"
	if a.ForwardBy {
		was = "0"
	}
	return aliasMark + "subnet=" + a.Gateway.String() + " forward=" + was + " root=" + a.Root
}

func parseAlias(s string) (alias, bool) {
	var a alias
	rest, ok := strings.CutPrefix(s, aliasMark+"subnet=")
	if !ok {
		return a, false
	}
	subnet, rest, ok1 := strings.Cut(rest, " forward=")
	was, root, ok2 := strings.Cut(rest, " root=")
	p, err := netip.ParsePrefix(subnet)
	if !ok1 || !ok2 || err != nil || !p.Addr().Is4() {
		return a, false
	}
	return alias{Gateway: p, ForwardBy: was == "0", Root: root}, true
}

// portAlias marks a link of ours that is a bridge's port.
func portAlias(root, container string) string {
	return aliasMark + "container=" + container + " root=" + rootKey(root)
}

func portOf(l linkInfo, root string) bool {
	return l.Kind == "veth" && strings.HasPrefix(l.Alias, aliasMark+"container=") && strings.HasSuffix(l.Alias, " root="+rootKey(root))
}

// rootKey names a state root in an alias, which holds 255 bytes.
func rootKey(root string) string {
	if root = filepath.Clean(root); len(root) <= 160 {
		return root
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(root)))
}

// shortHash is 8 hexadecimal digits of the parts.
func shortHash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return fmt.Sprintf("%x", sum[:4])
}

// ownBridge is the name of a state root's own bridge. Two roots on one host
// (a test's and the real one's) must not share a bridge: each hands out
// addresses by its own leases.
func (o Options) ownBridge() string {
	switch {
	case o.OwnBridge != "":
		return o.OwnBridge
	case filepath.Clean(o.Root) == defaultRoot:
		return defaultBridge
	}
	return "crb" + shortHash(filepath.Clean(o.Root))
}

func tableName(bridge string) string {
	if bridge == defaultBridge {
		return "crucible"
	}
	return "crucible-" + bridge
}

// findBridge returns the bridge that the config means, and makes it if it is
// our own. The leases are locked.
func findBridge(h *socket, o Options) (bridge, error) {
	own := o.ownBridge()
	if o.Config.Bridge == "" || o.Config.Bridge == own {
		return ensureBridge(h, own, o)
	}
	l, found, err := h.link(o.Config.Bridge)
	if err != nil {
		return bridge{}, err
	}
	if !found {
		return bridge{}, &BridgeNotFound{Name: o.Config.Bridge}
	}
	if l.Kind != "bridge" {
		return bridge{}, &BridgeNotOurs{Name: l.Name, Kind: l.Kind}
	}
	b := bridge{Name: l.Name, Index: l.Index, MAC: l.MAC, MTU: l.MTU, Idle: !l.Operating}
	b.Gateway, err = h.addressOf(l.Index)
	return b, err
}

// ensureBridge finds or makes our own bridge. That it is up says that it is
// complete: a command that died half-way leaves it down, and the next one does
// every step again.
func ensureBridge(h *socket, name string, o Options) (bridge, error) {
	l, found, err := h.link(name)
	if err != nil {
		return bridge{}, err
	}
	var mark alias
	if found {
		var ours bool
		if mark, ours = parseAlias(l.Alias); !ours || l.Kind != "bridge" || mark.Root != rootKey(o.Root) {
			return bridge{}, &BridgeNotOurs{Name: name, Owner: mark.Root, Kind: l.Kind}
		}
	} else {
		if mark, err = makeBridge(h, name, o); err != nil {
			return bridge{}, err
		}
		if l, _, err = h.link(name); err != nil {
			return bridge{}, err
		}
	}
	b := bridge{Name: name, Index: l.Index, Gateway: mark.Gateway, MAC: l.MAC, MTU: l.MTU, Idle: !l.Operating, Own: true}
	if l.up() {
		return b, nil
	}
	b.Idle = true
	if err := completeBridge(h, &b, mark); err != nil {
		if !found {
			err = errors.Join(err, removeBridge(h, b.Name, mark))
		}
		return bridge{}, err
	}
	return b, nil
}

// makeBridge makes the link, with its record, and nothing else.
func makeBridge(h *socket, name string, o Options) (alias, error) {
	used, defaultLink, err := h.routes4()
	if err != nil {
		return alias{}, err
	}
	mark := alias{Root: rootKey(o.Root)}
	if mark.Gateway, err = chooseSubnet(o.Subnet, o.wish(), used); err != nil {
		return alias{}, err
	}
	forward, err := os.ReadFile(forwardFile)
	if err != nil {
		return alias{}, fmt.Errorf("read ip_forward: %w", err)
	}
	mark.ForwardBy = strings.TrimSpace(string(forward)) == "0"

	// Containers send to the world through the default route's link: a larger
	// MTU than its own would cost them path MTU discovery on each connection.
	mtu := 0
	links, err := h.allLinks()
	if err != nil {
		return alias{}, err
	}
	for _, l := range links {
		if l.Index == defaultLink && l.MTU < 1500 {
			mtu = l.MTU
		}
	}

	// A fixed MAC: otherwise a bridge takes the lowest of its ports' and changes
	// it as containers come and go (br_stp_recalculate_bridge_id).
	// No multicast snooping: it costs queries and reports on each port, and a
	// port that joins late gets no multicast until the next query.
	noSnooping := nl.NewRtAttr(nl.IFLA_BR_MCAST_SNOOPING, []byte{0})
	r := newLink("bridge", name, 0, mtu, macFor(mark.Gateway.Addr()), noSnooping)
	if err := h.do(r, setAliasOf(name, mark.String())); err != nil {
		return alias{}, fmt.Errorf("make bridge %s: %w", name, err)
	}
	h.do(noIPv6(name)) // a kernel without IPv6 refuses, and needs none turned off
	return mark, nil
}

// wish is the address that the first container on a bridge is to have: a
// restored one finds its own again, whatever has become of the bridge that it
// was on. Only private addresses count, which nobody on the internet has.
func (o Options) wish() netip.Prefix {
	a := o.Config.Address
	if !a.IsValid() && o.Like != nil && !o.NewAddress {
		a = o.Like.Address
	}
	if !a.Addr().IsPrivate() {
		return netip.Prefix{}
	}
	return a
}

func completeBridge(h *socket, b *bridge, mark alias) error {
	n := nat{Table: tableName(b.Name), Bridge: b.Name, Subnet: mark.Gateway.Masked()}
	if err := n.set(); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+b.Name+"/route_localnet", []byte("1"), 0); err != nil {
		return fmt.Errorf("allow localhost ports: %w", err)
	}
	if mark.ForwardBy {
		if err := os.WriteFile(forwardFile, []byte("1"), 0); err != nil {
			return fmt.Errorf("turn on ip_forward: %w", err)
		}
		b.Changed = append(b.Changed, "net.ipv4.ip_forward: 0 -> 1, until the last container leaves")
	}
	if err := h.do(newAddress(b.Index, mark.Gateway, replace), setLinkUp(b.Index)); err != nil {
		return fmt.Errorf("set up bridge %s: %w", b.Name, err)
	}
	return nil
}

// chooseSubnet takes the wanted subnet or the first candidate that no route of
// the host overlaps: 10.77.0.0/16 to 10.87.0.0/16 (10.88 is Podman's), then
// some of 172.16.0.0/12 that are rarely used, then a small one. That the first
// is almost always free is what lets a container move between hosts and keep
// its address. A wish, see there, comes before all candidates.
func chooseSubnet(want, wish netip.Prefix, used []netip.Prefix) (netip.Prefix, error) {
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
			return netip.Prefix{}, &NoSubnet{Wanted: want, Overlap: o}
		}
		return netip.PrefixFrom(want.Masked().Addr().Next(), want.Bits()), nil
	}
	var candidates []netip.Prefix
	for i := byte(77); i <= 87; i++ {
		candidates = append(candidates, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, 0, 0}), 16))
	}
	for i := byte(28); i <= 30; i++ {
		candidates = append(candidates, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i, 0, 0}), 16))
	}
	candidates = append(candidates, netip.MustParsePrefix("192.168.222.0/24"))
	if wish.IsValid() && wish.Bits() <= 30 {
		candidates = append([]netip.Prefix{wish.Masked()}, candidates...)
	} else if wish.IsValid() {
		i := slices.IndexFunc(candidates, func(c netip.Prefix) bool { return c.Contains(wish.Addr()) })
		if i > 0 {
			candidates = append([]netip.Prefix{candidates[i]}, candidates...)
		}
	}
	for _, c := range candidates {
		if !overlap(c).IsValid() {
			return netip.PrefixFrom(c.Addr().Next(), c.Bits()), nil
		}
	}
	return netip.Prefix{}, &NoSubnet{}
}

// removeBridge undoes makeBridge and completeBridge.
func removeBridge(h *socket, name string, mark alias) error {
	var errs []error
	if err := h.do(deleteLink(name)); err != nil && !errors.Is(err, unix.ENODEV) {
		errs = append(errs, fmt.Errorf("delete bridge %s: %w", name, err))
	}
	errs = append(errs, nat{Table: tableName(name)}.remove())
	if mark.ForwardBy {
		errs = append(errs, forwardBack(h))
	}
	return errors.Join(errs...)
}

// forwardBack turns ip_forward off again, unless another state root's bridge
// still needs it: then that one inherits the duty.
func forwardBack(h *socket) error {
	var heir linkInfo
	links, err := h.allLinks()
	if err != nil {
		return err
	}
	for _, l := range links {
		if _, ok := parseAlias(l.Alias); ok {
			heir = l
		}
	}
	if mark, ok := parseAlias(heir.Alias); ok {
		mark.ForwardBy = true
		return h.do(setAliasOf(heir.Name, mark.String()))
	}
	if err := os.WriteFile(forwardFile, []byte("0"), 0); err != nil {
		return fmt.Errorf("turn off ip_forward: %w", err)
	}
	return nil
}
