package testenv

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ownNetwork says whether nobody but this process and what it starts is in its
// network namespace: its parent is in another. The thread is asked, because the
// first one may have been sent elsewhere by a test.
func ownNetwork() bool {
	own, err1 := os.Readlink("/proc/thread-self/ns/net")
	parent, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	return err1 == nil && err2 == nil && own != parent
}

// netOwner is that of what is in the network namespace and has no other.
func (s *scope) netOwner() owner {
	if s.net {
		return ours
	}
	return unknown
}

// linkTexts describes the links by index. A port's text has its bridge's.
func linkTexts() (map[int]string, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	texts := map[int]string{}
	for _, l := range links {
		texts[l.Attrs().Index] = strings.TrimSpace(fmt.Sprintf("%s (%s) %s", l.Attrs().Name, l.Type(), l.Attrs().Alias))
	}
	for _, l := range links {
		if bridge := texts[l.Attrs().MasterIndex]; bridge != "" {
			texts[l.Attrs().Index] += ", port of " + bridge
		}
	}
	return texts, nil
}

func listLinks(s *scope) ([]item, error) {
	texts, err := linkTexts()
	var items []item
	for index, text := range texts {
		name, _, _ := strings.Cut(text, " ")
		items = append(items, item{id: fmt.Sprintf("%d %s", index, name), what: text, owner: s.netOwner})
	}
	return sortItems(items), err
}

func linkText(texts map[int]string, index int) string {
	if text, ok := texts[index]; ok {
		return text
	}
	return fmt.Sprintf("link %d", index)
}

func listAddresses(s *scope) ([]item, error) {
	texts, err := linkTexts()
	if err != nil {
		return nil, err
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var items []item
	for _, a := range addresses {
		items = append(items, item{
			id: fmt.Sprintf("%s on %d", a.IPNet, a.LinkIndex), what: fmt.Sprintf("%s on %s", a.IPNet, linkText(texts, a.LinkIndex)), owner: s.netOwner,
		})
	}
	return items, nil
}

// listForwarding lists the entries of bridges that somebody has set; what a
// bridge learns by itself it forgets by itself.
func listForwarding(s *scope) ([]item, error) {
	texts, err := linkTexts()
	if err != nil {
		return nil, err
	}
	entries, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var items []item
	for _, e := range entries {
		if e.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) == 0 {
			continue
		}
		items = append(items, item{
			id:   fmt.Sprintf("%s on %d vlan %d", e.HardwareAddr, e.LinkIndex, e.Vlan),
			what: fmt.Sprintf("%s vlan %d on %s", e.HardwareAddr, e.Vlan, linkText(texts, e.LinkIndex)), owner: s.netOwner,
		})
	}
	return items, nil
}

// listNftables lists tables, chains, rules, sets and their elements. What goes
// away between two questions makes the kernel answer that there is no such
// thing: then all is asked again.
func listNftables(s *scope) (items []item, err error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for range 50 {
		// The library's error does not always lead back to the errno.
		if items, err = s.listNftablesOnce(); err == nil || !strings.Contains(err.Error(), unix.ENOENT.Error()) {
			break
		}
	}
	return items, err
}

func (s *scope) listNftablesOnce() ([]item, error) {
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
		items = append(items, item{id: what, what: what, owner: s.netOwner})
	}
	for _, t := range tables {
		add("table %s (family %d)", t.Name, t.Family)
		sets, err := c.GetSets(t)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		for _, set := range sets {
			elements, _ := c.GetSetElements(set)
			add("set %s of table %s", set.Name, t.Name)
			for _, e := range elements {
				add("element %x %x of set %s of table %s", e.Key, e.Val, set.Name, t.Name)
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
