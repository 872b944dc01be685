package network

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
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
	Owner   string   // another state root, for which crucible made it
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

// findBridge returns the bridge that the config means, and makes it if nobody
// has. The leases are locked.
func findBridge(h *socket, o Options) (bridge, error) {
	own := o.ownBridge()
	name := cmp.Or(o.Config.Bridge, own)
	l, found, err := h.link(name)
	if err != nil {
		return bridge{}, err
	}
	mark, marked := parseAlias(l.Alias)
	ours := marked && mark.Root == rootKey(o.Root)
	switch {
	case found && (l.Kind != "bridge" || name == own && !ours):
		return bridge{}, &BridgeNotOurs{Name: name, Owner: mark.Root, Kind: l.Kind}
	case found && !ours:
		b := bridge{Name: name, Index: l.Index, MAC: l.MAC, MTU: l.MTU, Idle: !l.Operating, Owner: mark.Root}
		b.Gateway, err = h.addressOf(l.Index)
		return b, err
	case found:
		return ensureBridge(h, l, mark)
	case o.Config.Foreign:
		return bridge{}, &BridgeNotFound{Name: name}
	}
	if mark, err = makeBridge(h, name, o); err != nil {
		return bridge{}, err
	}
	if l, _, err = h.link(name); err != nil {
		return bridge{}, err
	}
	b, err := ensureBridge(h, l, mark)
	if err != nil {
		err = errors.Join(err, removeBridge(h, name, mark))
	}
	return b, err
}

// ensureBridge completes a bridge of ours. That it is up says that it is
// complete: a command that died half-way leaves it down, and the next one does
// every step again.
func ensureBridge(h *socket, l linkInfo, mark alias) (bridge, error) {
	b := bridge{Name: l.Name, Index: l.Index, Gateway: mark.Gateway, MAC: l.MAC, MTU: l.MTU, Idle: !l.Operating, Own: true}
	if l.up() {
		return b, nil
	}
	b.Idle = true
	return b, completeBridge(h, &b, mark)
}

// newName refuses names that a bridge of ours cannot have: the kernel fills in
// a number for a %, a lease would be where the leases' lock is, and the name
// that the default state root's own bridge always has is kept for it.
func newName(name, own string) error {
	switch {
	case name == defaultBridge && own != defaultBridge:
		return &BridgeNotOurs{Name: name, Owner: defaultRoot, Kind: "bridge"}
	case name == "lock" || strings.Contains(name, "%"):
		return fmt.Errorf("make bridge %s: crucible makes none of that name", name)
	}
	return nil
}

// makeBridge makes the link, with its record, and nothing else.
func makeBridge(h *socket, name string, o Options) (alias, error) {
	if err := newName(name, o.ownBridge()); err != nil {
		return alias{}, err
	}
	links, err := h.allLinks()
	if err != nil {
		return alias{}, err
	}
	used, defaultLink, err := h.usedSubnets(links)
	if err != nil {
		return alias{}, err
	}
	mark := alias{Root: rootKey(o.Root)}
	if mark.Gateway, err = chooseSubnet(o.wantedSubnet(), o.wish(), o.pool(name), used); err != nil {
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
