package testenv

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func listLinks(*scope) ([]item, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var items []item
	for _, l := range links {
		a := l.Attrs()
		what := fmt.Sprintf("%s (%s)", a.Name, l.Type())
		if a.Alias != "" {
			what += " " + a.Alias
		}
		items = append(items, item{id: fmt.Sprintf("%d %s", a.Index, a.Name), what: what})
	}
	return items, nil
}

func linkName(index int) string {
	l, err := net.InterfaceByIndex(index)
	if err != nil {
		return fmt.Sprintf("link %d", index)
	}
	return l.Name
}

func listAddresses(*scope) ([]item, error) {
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var items []item
	for _, a := range addresses {
		what := fmt.Sprintf("%s on %s", a.IPNet, linkName(a.LinkIndex))
		items = append(items, item{id: what, what: what})
	}
	return items, nil
}

// listForwarding lists the entries of bridges that somebody has set; what a
// bridge learns by itself it forgets by itself.
func listForwarding(*scope) ([]item, error) {
	entries, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var items []item
	for _, e := range entries {
		if e.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) == 0 {
			continue
		}
		what := fmt.Sprintf("%s on %s vlan %d", e.HardwareAddr, linkName(e.LinkIndex), e.Vlan)
		items = append(items, item{id: what, what: what})
	}
	return items, nil
}

// listNftables lists tables, chains, rules, sets and their elements. What goes
// away between two questions makes the kernel answer that there is no such
// thing: then all is asked again.
func listNftables(*scope) (items []item, err error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for range 50 {
		// The library's error does not always lead back to the errno.
		if items, err = listNftablesOnce(); err == nil || !strings.Contains(err.Error(), unix.ENOENT.Error()) {
			break
		}
	}
	return items, err
}

func listNftablesOnce() ([]item, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return nil, nil // not in this kernel, or not for us: then nobody leaves any
	}
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, err
	}
	var items []item
	add := func(format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		items = append(items, item{id: what, what: what})
	}
	for _, t := range tables {
		add("table %s (family %d)", t.Name, t.Family)
		sets, err := c.GetSets(t)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		for _, s := range sets {
			elements, _ := c.GetSetElements(s)
			add("set %s of table %s", s.Name, t.Name)
			for _, e := range elements {
				add("element %x %x of set %s of table %s", e.Key, e.Val, s.Name, t.Name)
			}
		}
	}
	for _, chain := range chains {
		add("chain %s of table %s", chain.Name, chain.Table.Name)
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		for _, r := range rules {
			add("rule %d of chain %s of table %s: %s", r.Handle, chain.Name, chain.Table.Name, r.UserData)
		}
	}
	return items, nil
}
